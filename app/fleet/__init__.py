"""The Fleet page's parts: tiles, charts, and one worker looked at closely."""
