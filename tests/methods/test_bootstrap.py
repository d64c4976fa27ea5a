"""Bootstrap samples of CaDM's ensemble members."""

import torch

from persim_lightning.methods.cadm.module import BootstrapGather


def test_every_member_gets_its_bootstrap_sample():
    rows = torch.tensor([1, 2, 5, 6, 9])

    class Echo:
        rows_each = 1

        def __call__(self, rows):
            return rows

    gather = BootstrapGather(Echo(), rows, 3, seed=0)
    drawn = gather(rows.expand(2, 3, 5))
    assert drawn.shape == (2, 3, 5)
    assert set(drawn.flatten().tolist()) <= set(rows.tolist())
    samples = [tuple(sample) for sample in drawn[0].tolist()]
    assert len(set(samples)) == 3
    assert any(len(set(sample)) < len(sample) for sample in samples)
    # The sample is drawn once: an epoch later a row stands for the same one.
    assert torch.equal(drawn[0], drawn[1])
