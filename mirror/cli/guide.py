"""The help of all commands: in which panel each stands, and two examples for the end of each page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from typer.core import TyperGroup

PANELS: Mapping[str, tuple[str, ...]] = {
    "Set up": ("init", "login", "service", "demo"),
    "Keep up to date": ("sync", "daemon", "ingest", "flush", "forget"),
    "Look around": ("projects", "runs", "show", "keys", "diff", "open"),
    "Query, draw and export": (
        *("query", "shell", "history", "table", "logged-table", "plot", "report", "export", "env"),
    ),
    "For agents": ("mcp", "skill"),
    "Share": ("token",),
    "Change runs": ("update",),
    "Health": ("status", "log", "doctor", "verify", "backup", "restore", "storage", "gc"),
}

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "": ("mirror init my-team/vision && mirror sync", "mirror runs my-team/vision state=finished 'config.lr<0.01'"),
    "init": ("mirror init my-team/vision 'my-team/nlp-*'", "mirror init --list"),
    "login": ("mirror login", "mirror login < key.txt"),
    "sync": ("mirror sync", "mirror sync my-team/vision --dry-run"),
    "flush": ("mirror flush my-team/vision/3xk9q2ab", "mirror flush my-team/vision"),
    "forget": ("mirror forget my-team/old --dry-run", "mirror forget my-team/vision/3xk9q2ab"),
    "ingest": ("mirror ingest ~/train", "mirror ingest ~/train/wandb"),
    "daemon": ("mirror daemon", "mirror daemon --stop"),
    "service": ("mirror service install", "mirror service status"),
    "service install": ("mirror service install", "mirror service install --print"),
    "service uninstall": ("mirror service uninstall", "mirror service uninstall --name wandb-mirror-2"),
    "service status": ("mirror service status", "mirror service status --name wandb-mirror-2"),
    "projects": ("mirror projects", "mirror projects 'my-team/*' --json"),
    "runs": (
        "mirror runs my-team/vision state=finished 'config.lr<0.01'",
        "mirror runs my-team/vision 'created_at>7d' --order -summary.acc --limit 10",
    ),
    "show": ("mirror show bright-sky-12", "mirror show my-team/vision/3xk9q2ab --json"),
    "keys": ("mirror keys my-team/vision", "mirror keys my-team/vision 'config.*' '*loss*'"),
    "diff": ("mirror diff bright-sky-12 bright-sky-13", "mirror diff 3xk9q2ab 7c0d1efg --all --csv"),
    "shell": ("mirror shell", "mirror shell --builtin"),
    "query": (
        'mirror query "SELECT state, count(*) FROM runs GROUP BY state"',
        "mirror query --project my-team/vision --where state=finished --order -summary.acc --csv",
    ),
    "history": (
        "mirror history bright-sky-12 --keys loss,val/acc",
        "mirror history my-team/vision/3xk9q2ab -o history.parquet",
    ),
    "table": (
        "mirror table my-team/vision --group-by config.lr --select summary.acc,summary.loss",
        "mirror table my-team/vision state=finished --group-by config.lr --select summary.acc -o acc.tex",
    ),
    "logged-table": (
        "mirror logged-table bright-sky-12",
        "mirror logged-table my-team/vision/3xk9q2ab predictions -o predictions.parquet",
    ),
    "export": ("mirror export my-team/vision -o exported", "mirror export my-team/vision --wandb moved"),
    "report": (
        "mirror report my-team/vision",
        "mirror report 'Which rate is best?' -o rates.html",
    ),
    "plot": (
        "mirror plot bright-sky-12 --keys loss,val/acc --smooth 0.9",
        "mirror plot --project my-team/vision --where state=finished --group-by config.lr -o loss.png",
    ),
    "skill": ("mirror skill install", "mirror skill install ~/.claude/skills"),
    "skill install": ("mirror skill install ~/.claude/skills", "mirror skill install --print"),
    "mcp": (
        "mirror mcp --tools",
        'mirror mcp describe_project \'{"project": "my-team/vision"}\'',
    ),
    "update": (
        "mirror update bright-sky-12 --add-tag baseline",
        "mirror update --project my-team/vision --where state=failed --add-tag broken --dry-run",
    ),
    "status": ("mirror status my-team/vision --watch", "mirror status --check --max-age 15m"),
    "log": ("mirror log -f", "mirror log -n 200 --json"),
    "doctor": ("mirror doctor", "mirror doctor --json"),
    "verify": ("mirror verify my-team/vision", "mirror verify my-team/vision --deep --repair"),
    "backup": ("mirror backup /backups/wandb", "MIRROR_HOME=/srv/wandb mirror backup /backups/wandb"),
    "restore": ("mirror restore /backups/wandb", "MIRROR_HOME=/srv/wandb mirror restore /backups/wandb"),
    "storage": ("mirror storage --by project,type", "mirror storage my-team/vision --twice --limit 20"),
    "gc": ("mirror gc --dry-run", "mirror gc --grace 0s"),
    "open": ("mirror open", "mirror open --print"),
    "env": ('eval "$(mirror env)"', "mirror env --key"),
    "token": ("mirror token add ada --project 'my-team/*' --days 90", "mirror token list"),
    "token add": ("mirror token add ada --project 'my-team/*' --days 90", "mirror token add dashboard"),
    "token list": ("mirror token list", "mirror token list --json"),
    "token revoke": ("mirror token revoke ada", "mirror token revoke dashboard"),
    "demo": ("mirror demo", "mirror demo --keep"),
}

_SENTENCE = re.compile(r".+?\.(?=\s|$)", re.DOTALL)


def epilog(name: str) -> str | None:
    """The end of a command's help; None for a command without examples."""
    examples = EXAMPLES.get(name)
    # \b keeps the lines as they are.
    return "\b\n" + "\n".join(["Examples:", *(f"  {example}" for example in examples)]) if examples else None


def summary(command: Any) -> str:
    """The first sentence of a command's help, complete."""
    paragraph = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
    sentence = _SENTENCE.match(paragraph)
    return sentence[0] if sentence else paragraph


class Panels(TyperGroup):
    """A group whose help lists its commands by panel, each with its whole first sentence."""

    panels: Mapping[str, tuple[str, ...]] = {}
    """The names of each panel, in the order of the help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the panels; commands that stand in none come last."""
        listed = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        width = max((len(name) for name in listed), default=0)
        panels = {title: [name for name in names if name in listed] for title, names in self.panels.items()}
        known = {name for names in panels.values() for name in names}
        panels["Commands"] = [name for name in listed if name not in known]
        for title, names in panels.items():
            if names:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(width), summary(listed[name])) for name in names])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return names of commands and options alone: for their help, every command would have to be imported."""
        if incomplete.startswith("-"):
            return list(super().shell_complete(ctx, incomplete))
        # Typer bundles click, or uses the one that is installed.
        item = import_module(f"{TyperGroup.__mro__[1].__module__.rpartition('.')[0]}.shell_completion").CompletionItem
        return [item(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
