"""`reelmill NAME [options]`: the commands, in the order of the road.

reelmill --help            lists them
reelmill curate --help     explains one
python -m pipelines.curate is the same as `reelmill curate`
"""

from __future__ import annotations

import importlib
import sys

# In the order of the road. Help stands here so that listing the commands imports none of them.
COMMANDS = {
    "demo": "everything below on rendered films, or on your own with --footage DIR",
    "curate": "find the shots in footage, score them, decide which to keep",
    "decide": "decide again with other thresholds, without decoding anything",
    "overrule": "keep or reject clips by hand, whatever the rules say: a list of them",
    "recaption": "write captions for the kept clips",
    "shard": "cut the kept clips and pack them with their captions into WebDataset tars",
    "encode": "turn the clips into VAE latents and their captions into text embeddings",
    "train-vae": "train the video autoencoder",
    "train-captioner": "train the CoCa captioner, its base and its fine-tunes",
    "tune-captioner": "tune a vision-language model on captions, with LoRA",
    "train": "train the diffusion transformer on the latents",
    "sample": "generate a video from a prompt",
    "evaluate": "measure what models draw of the procedural world: are the attributes right?",
    "status": "tell how far each stage and the jobs at work on a dataset are",
    "report": "write one HTML page that shows a dataset: funnel, scores, clips, captions, errors",
    "serve": "show a dataset live in a browser: search, play clips, overrule decisions, SQL",
    "compact": "merge small files of the tables into few large ones",
    "query": "ask the tables in SQL",
    "card": "write the dataset card that the Hugging Face Hub shows",
    "inspect": "tell the whole story of one clip",
    "doctor": "check whether this machine is ready",
}


def usage() -> str:
    """The table that `reelmill --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{told}" for name, told in COMMANDS.items()]
    return "\n".join(
        [
            "usage: reelmill COMMAND [options]",
            "",
            "From raw footage to a trained text-to-video model. In the order of the road:",
            "",
            *lines,
            "",
            "`reelmill COMMAND --help` explains a command; `reelmill demo` shows them all at work.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if args[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"reelmill {version('reelmill')}")
        return 0
    name = args[0].replace("_", "-")
    if name not in COMMANDS:
        from pipelines.spelling import nearest

        print(
            f"reelmill: error: there is no command {args[0]!r}; the nearest is {nearest(name, COMMANDS)!r}. "
            "`reelmill --help` lists them all.",
            file=sys.stderr,
        )
        return 2
    module = importlib.import_module(f"pipelines.{name.replace('-', '_')}")
    if not hasattr(module, "main"):  # a package, such as pipelines.demo
        module = importlib.import_module(f"{module.__name__}.__main__")
    code: int = module.main(args[1:])
    return code


if __name__ == "__main__":
    raise SystemExit(main())
