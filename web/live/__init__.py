"""Subscriptions on their way to clients: WebSockets, Server-Sent Events and multipart."""
