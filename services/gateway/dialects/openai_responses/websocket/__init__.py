"""The Responses API over a WebSocket: lanes of turns, each run as an HTTP request is."""
