"""The only part of the product that talks to a Docker engine, and all that it can ask of one."""
