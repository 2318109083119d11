"""Which external files a suite needs."""

from hqdm_bench.catalogue import ArtefactSpec, Catalogue, Suite

__all__ = ["suite_artefacts"]


def suite_artefacts(catalogue: Catalogue, suite: Suite) -> list[ArtefactSpec]:
    """Checkpoints, reference sets and extractor weights of a suite, in the catalogue's order."""
    protocols = {cell.protocol for entry in suite.models for cell in entry.scored}
    protocols |= {one.cell.protocol for entry in suite.models for one in entry.baselines}
    wanted = {catalogue.model(entry.model).artefact for entry in suite.models}
    wanted |= {catalogue.protocol(name).reference for name in protocols}
    if protocols:
        wanted.add(suite.extractor)
    return [spec for name, spec in catalogue.artefacts.items() if name in wanted]
