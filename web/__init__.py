"""The door: settings, wiring, routes, HTTP, health, metrics, command line."""
