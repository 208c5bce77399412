"""A neuron's stream of reports as a real network makes it: cut, slow, lossy, out of order."""

from __future__ import annotations

from bench.simulate.invariants import Invariants
from bench.simulate.neuron import Neuron
from bench.simulate.world import Run
from services.registry.fleet.records import NeuronIdentity, NeuronReport

_REPORT_SECONDS = 3.0
# A neuron whose registry comes back has attached again by then.
_RETURN_SECONDS = 4.0
# A peer that is cut off is noticed after so long, as gRPC's keep-alive does.
KEEPALIVE_SECONDS = 15.0


class Link:
    """One neuron's stream."""

    def __init__(self, run: Run, invariants: Invariants, neuron: Neuron) -> None:
        self.neuron = neuron
        self._run, self._invariants = run, invariants
        self.epoch: int | None = None
        self.cut_until = 0.0
        self._round = 0
        self._told_use = 0  # the version of the neuron's totals that this stream has told

    @property
    def is_cut(self) -> bool:
        """True while nothing passes."""
        return self._run.world.now < self.cut_until

    def attach(self) -> None:
        """Opens a stream, or tries again later."""
        world = self._run.world
        if not self.neuron.is_up:
            return
        if self.is_cut:
            world.after(1.0, self.attach)
            return
        self._round += 1
        self._told_use = 0
        self.epoch = self._run.control.membership.attach(self.neuron.identity)
        self._invariants.attached(self.neuron)
        self.report()
        self._beat(self._round)

    def _beat(self, round_: int) -> None:
        if self.neuron.is_up and round_ == self._round:
            self.report()
            self._run.world.after(_REPORT_SECONDS, lambda: self._beat(round_))

    def report(self) -> None:
        """Sends the state as it is now; it arrives as the network pleases."""
        if self.epoch is None or not self.neuron.is_up or self.is_cut:
            return
        world, faults = self._run.world, self._run.scenario.faults
        identity, report, epoch = self.neuron.identity, self.neuron.report(), self.epoch
        if world.random.random() < faults.lost:
            return
        self.neuron.measure()
        use = self.neuron.works.use
        rows, self._told_use = use.since(self._told_use), use.version
        late = world.random.random() < faults.late
        delay = world.random.uniform(0.05, 2.0) if late else world.latency()
        control = self._run.control

        def arrive() -> None:
            if self._run.control is control:  # else the registry that it was sent to is gone
                self._run.bookkeeping.take(identity.incarnation_id, rows)
                self._arrive(identity, epoch, report)

        world.after(delay, arrive)

    def _arrive(self, identity: NeuronIdentity, epoch: int, report: NeuronReport) -> None:
        taken = self._run.control.membership.report(identity.name, epoch, report)
        self._invariants.reported(identity, epoch, report, taken=taken)
        self._run.control.placements.advance()

    def tell_all(self) -> None:
        """The neuron ends well: it tells whom its devices have worked for."""
        if self.neuron.is_up:
            self.neuron.measure()
            identity = self.neuron.identity
            rows = self.neuron.works.use.since(0)
            self._run.bookkeeping.take(identity.incarnation_id, rows)

    def registry_restarted(self) -> None:
        """The stream ended with the registry; the neuron tries again after a pause."""
        self.epoch = None
        self._round += 1
        self._run.world.after(self._run.world.random.uniform(0.0, _RETURN_SECONDS), self.attach)

    def broke(self) -> None:
        """The registry notices that the stream is gone."""
        epoch, self.epoch = self.epoch, None
        self._round += 1
        if epoch is not None:
            self._run.control.membership.stream_broke(self.neuron.name, epoch)
            self._run.control.placements.advance()
