"""Lightning's view of ``common.cluster.ranks``: processes that a scheduler or an MPI started."""

from __future__ import annotations

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from typing_extensions import override

from common.cluster.ranks import Place, address, place
from common.errors import BadInputError


class StartedElsewhere(ClusterEnvironment):
    """The one cluster environment of this repository; it reads a table and starts nothing.

    Args:
        here: this process's place; read from the environment by default.
    """

    def __init__(self, here: Place | None = None) -> None:
        super().__init__()
        self.here = place() if here is None else here

    @property
    @override
    def creates_processes_externally(self) -> bool:
        """Yes: srun, mpirun or torchrun did."""
        return True

    @property
    @override
    def main_address(self) -> str:
        """Where rank 0 listens."""
        return address()[0]

    @property
    @override
    def main_port(self) -> int:
        """Where rank 0 listens."""
        return address()[1]

    @staticmethod
    @override
    def detect() -> bool:
        """Whether several processes were started."""
        return place().size > 1

    @override
    def world_size(self) -> int:
        """Processes of the job."""
        return self.here.size

    @override
    def set_world_size(self, size: int) -> None:
        """Refuse another size than the starter's.

        Raises:
            BadInputError: `size` differs: devices and nodes do not match the processes.
        """
        self._agree("size", size, self.here.size)

    @override
    def global_rank(self) -> int:
        """This process's rank."""
        return self.here.rank

    @override
    def set_global_rank(self, rank: int) -> None:
        """Refuse another rank than the starter's.

        Raises:
            BadInputError: `rank` differs.
        """
        self._agree("rank", rank, self.here.rank)

    @override
    def local_rank(self) -> int:
        """The rank on this node."""
        return self.here.local_rank

    @override
    def node_rank(self) -> int:
        """This node's number."""
        return self.here.node

    def _agree(self, what: str, asked: int, told: int) -> None:
        if asked != told:
            raise BadInputError(
                f"the training computes {what} {asked}, and {self.here.starter} started this process with {told}: "
                "processes per node and devices per node must be equal on all nodes."
            )
