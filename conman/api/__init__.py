"""The HTTP front door: routers parse, a policy allows, a service or a workflow answers."""
