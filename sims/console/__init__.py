"""The console: text or JSON lines to commands, events to text or JSON lines."""
