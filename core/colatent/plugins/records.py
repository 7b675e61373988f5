"""What a plugin declares, as plain records that import nothing heavy.

Declaring must never import torch: `colatent plugins` and `colatent --help` read these records and answer at once. The
classes that a declaration points at are written as "package.module:Name" and imported only when a run builds them.
"""

from __future__ import annotations

from dataclasses import dataclass

API_VERSION = (1, 2)
"""Version of the seam, (major, minor): a minor one adds optional things, a major one may remove."""


@dataclass(frozen=True, kw_only=True)
class CodecInfo:
    """One codec: turns items of one modality into latents and back.

    name          unique name by which configs select the codec
    modality      the kind of data, for example "text"
    axes          number of position axes of a latent: 1 (text, audio), 2 (image) or 3 (video)
    fields        sample fields that the codec reads; the first one holds the item
    factory       "package.module:Class" of the codec (an `nn.Module`, see `colatent.plugins.contract.Codec`)
    config        "package.module:Model" of its pydantic config, which has a torch-free `latent_spec()`
    requires_api  the seam version that it was written for, "MAJOR" or "MAJOR.MINOR"
    summary       one line for `colatent plugins list`
    """

    name: str
    modality: str
    axes: int
    fields: tuple[str, ...]
    factory: str
    config: str
    requires_api: str = "1"
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One source of training samples, selected by name in `data.sources.*.dataset`.

    name     unique name
    fields   sample fields that it yields
    factory  "package.module:Class" of the dataset (see `colatent.data.dataset.Dataset`)
    config   "package.module:Model" of its pydantic config
    summary  one line for `colatent plugins list`
    """

    name: str
    fields: tuple[str, ...]
    factory: str
    config: str
    requires_api: str = "1"
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """One judge of finished models, selected by name in `tasks` and by `colatent eval run --task`.

    name     unique name
    factory  "package.module:Class" of the task (see `colatent.evaluate.tasks.Task`)
    config   "package.module:Model" of its pydantic config
    summary  one line for `colatent plugins list`
    demo     "package:file.yaml", the config of a run that the task judges and that `colatent demo --all` trains; empty
             for none
    """

    name: str
    factory: str
    config: str
    requires_api: str = "1.1"
    summary: str = ""
    demo: str = ""


Declaration = CodecInfo | DatasetInfo | TaskInfo
"""What a plugin may declare."""


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """Shape of a codec's latents at one configuration, known without torch.

    channels          width C of one latent
    block             latents per block where that is fixed (text, audio), None where a block is a whole item (image)
    units_per_latent  data units (tokens, pixels, audio samples) in one latent, on average where the rate varies
    """

    channels: int
    block: int | None
    units_per_latent: float
