"""The demo: SSH hosts inside the process, and the example service that is deployed to them."""
