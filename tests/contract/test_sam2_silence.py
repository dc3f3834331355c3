"""What the real server tells of sequences whose client has fallen silent."""

import numpy as np
import pytest

from deploy.docker.pod.drain_sequences import active_sequences
from deploy.local.cluster import LocalCluster
from orchestrator.contracts import SAM2_TRACKER
from orchestrator.settings import TritonSettings
from orchestrator.triton.client import SequenceStep, TritonClient
from tests.patience import until

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_a_silent_sequence_frees_its_slot_though_nobody_asks_again():
    name = SAM2_TRACKER.name
    async with LocalCluster("sim", models=[name], overrides={name: {"ttl_s": "5"}}) as cluster:
        metrics = f"http://{cluster.metrics_endpoints[name]}/metrics"
        settings = TritonSettings(url=cluster.endpoints[name])
        async with TritonClient(settings, (SAM2_TRACKER,)) as client:
            frame = np.zeros((1, 64, 64, 3), np.uint8)
            await client.infer(SAM2_TRACKER, {"frame": frame}, step=SequenceStep(5, is_start=True))
            assert active_sequences(metrics) == 1
            await until(lambda: not active_sequences(metrics))
