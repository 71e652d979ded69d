"""What MPI is told before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dft import mpi_settings


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the directory in which the kernel shows its network cards below ``tmp_path``."""
    monkeypatch.setattr(mpi_settings, "FABRIC_CLASSES", (str(tmp_path / "a"), str(tmp_path / "b")))
    return tmp_path


def prepared(**environment: str) -> dict[str, str]:
    mpi_settings.prepare(environment)
    return environment


def test_a_host_without_fast_network_does_not_look_for_one(classes: Path) -> None:
    (classes / "a").mkdir()  # the driver is there, and no card
    settings = prepared()
    assert settings["OMPI_MCA_pml"] == "^ucx" and settings["OMPI_MCA_mtl"] == "^ofi"
    assert settings["UCX_MEM_MMAP_HOOK_MODE"] == "none"


def test_a_host_with_a_fast_network_uses_it(classes: Path) -> None:
    (classes / "b" / "cxi0").mkdir(parents=True)
    settings = prepared()
    assert not {"OMPI_MCA_pml", "OMPI_MCA_mtl", "UCX_MEM_MMAP_HOOK_MODE"} & settings.keys()
    assert settings["OMPI_MCA_btl"] == "^ofi"


def test_addresses_are_short_where_slurm_passes_them_on(classes: Path) -> None:
    by_slurm = {"PMI_RANK": "0", "PMI_FD": "9", "SLURM_STEP_ID": "0"}
    assert "MPIR_CVAR_CH4_NETMOD" not in prepared(PMI_RANK="0", PMI_FD="9")  # MPICH's own mpirun
    assert prepared(**by_slurm)["MPIR_CVAR_CH4_NETMOD"] == "ofi"
    assert prepared(**by_slurm, MPIR_CVAR_CH4_NETMOD="ucx")["MPIR_CVAR_CH4_NETMOD"] == "ucx"
    (classes / "a" / "mlx5_0").mkdir(parents=True)
    assert "MPIR_CVAR_CH4_NETMOD" not in prepared(**by_slurm)


@pytest.mark.parametrize("name", ["OMPI_MCA_pml", "OMPI_MCA_mtl"])
def test_who_chooses_the_way_to_the_network_chooses_all_of_it(classes: Path, name: str) -> None:
    settings = prepared(**{name: "cm"})
    assert {"OMPI_MCA_pml", "OMPI_MCA_mtl", "UCX_MEM_MMAP_HOOK_MODE"} & settings.keys() == {name}
    assert settings[name] == "cm"


def test_what_is_set_stays(classes: Path) -> None:
    assert prepared(OMPI_MCA_btl="self,tcp")["OMPI_MCA_btl"] == "self,tcp"
    assert prepared(UCX_MEM_MMAP_HOOK_MODE="bistro")["UCX_MEM_MMAP_HOOK_MODE"] == "bistro"
