"""wandb-summarizer's command, which was written for a Python that still had `collections.Mapping`."""

import collections
import collections.abc

collections.Mapping = collections.abc.Mapping

from wandb_summarizer.export import main  # noqa: E402

main()
