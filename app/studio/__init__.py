"""The studio: where a person draws an agent, sets it up, tests it and deploys it."""
