"""What the library reads but does not hold, and how foreign checkpoints are read safely."""

from facesr_lib.assets.registry import (
    SHIPPED,
    AssetMissing,
    Entry,
    FetchFailed,
    File,
    cache,
    checked,
    entry,
    fetch,
    home,
    locate,
    names,
    path,
    table,
    verify,
)
