"""Images for clusters: the definitions' generator and checker, the build, and how a command runs inside one."""

from common.container.command import inside

__all__ = ["inside"]
