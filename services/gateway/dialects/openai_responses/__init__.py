"""OpenAI Responses, with stored responses and conversations chained by them."""
