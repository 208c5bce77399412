import asyncio

from services.gateway.transports.credit_window import CreditWindow


async def test_what_is_spent_is_waited_for_until_enough_is_granted():
    credit = CreditWindow(2)
    await credit.available()
    credit.spend(3)
    waiting = asyncio.create_task(credit.available())

    credit.grant(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert credit.is_spent
    assert not waiting.done()

    credit.grant(1)
    await asyncio.wait_for(waiting, 5)
    assert not credit.is_spent
