"""`fcnet completion`: scripts by which shells complete fcnet's command lines, generated from its parsers."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from fcnet.cli.commands import COMMANDS, parser_of, top
from fcnet.cli.parser import Parser
from fcnet.errors import unknown


def add(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", metavar="SHELL", help="bash, zsh or fish")
    parser.names["shell"] = tuple(SCRIPTS)
    parser.epilog = (
        "to have it in every shell:\n"
        "  bash  echo 'source <(fcnet completion bash)' >> ~/.bashrc\n"
        "  zsh   echo 'source <(fcnet completion zsh)' >> ~/.zshrc    (after compinit)\n"
        "  fish  fcnet completion fish > ~/.config/fish/completions/fcnet.fish"
    )


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    if options.shell not in SCRIPTS:
        raise unknown("shell", options.shell, SCRIPTS)
    print(SCRIPTS[options.shell]())
    return 0


class Completed(NamedTuple):
    """Describe an option or argument: its spellings (none for an argument), its help, and what its value can be."""

    flags: list[str]
    help: str
    takes_value: bool
    names: tuple[str, ...]
    paths: str  # "files", "folders" or ""


def completed(parser: Parser) -> list[Completed]:
    """Return all options and arguments of a command."""
    found = []
    for action in parser.actions():
        metavar = str(action.metavar)
        files = any(word in metavar for word in ("FILE", "RUN", "INPUT"))
        paths = "folders" if "FOLDER" in metavar else "files" if files else ""
        takes_value = action.nargs != 0
        about = (action.help or "").replace("%(default)s", str(action.default))
        found.append(
            Completed(list(action.option_strings), about, takes_value, parser.names.get(action.dest, ()), paths)
        )
    return found


def _bash() -> str:
    """Return a shell function that completes by the command and the word before; the script contains all it needs."""
    cases = []
    for name in COMMANDS:
        lines = [f"        {name})", '            case "$before" in']
        options = completed(parser_of(name))
        for one in options:
            if one.flags and one.takes_value:
                lines.append(f"                {'|'.join(one.flags)}) {_bash_values([one])} ;;")
        flags = " ".join(flag for one in options for flag in one.flags)
        places = [one for one in options if not one.flags]
        lines += [
            f'                *) if [[ "$current" == -* ]]; then words={shlex.quote(flags)}',
            f"                   else {_bash_values(places) if places else f'words={shlex.quote(flags)}'}; fi ;;",
            "            esac ;;",
        ]
        cases += lines
    flags = " ".join(flag for one in completed(top()) for flag in one.flags)
    return "\n".join([
        "# Completion of fcnet in bash, made by `fcnet completion bash`.",
        "_fcnet() {",
        "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words= paths= flag= list= line",
        "    COMPREPLY=()",
        "    # --flag=value comes as three words, or as one where = is no break between words",
        "    if [[ $current == = ]]; then current=",
        "    elif [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}",
        "    elif [[ $current == --*=* ]]; then before=${current%%=*} flag=${current%%=*}= current=${current#*=}; fi",
        "    if (( COMP_CWORD == 1 )); then",
        f"        words={shlex.quote(' '.join([*COMMANDS, flags]))}",
        '    else case "${COMP_WORDS[1]}" in',
        *cases,
        "    esac; fi",
        "    # of a,b only the last is to be completed",
        '    [[ -n $words && $current == *,* ]] && list=${current%,*},',
        '    [[ -n $words ]] && while IFS= read -r line; do COMPREPLY+=("$flag$list$line"); done \\',
        '        < <(compgen -W "$words" -- "${current##*,}")',
        "    if [[ -n $paths ]]; then",
        "        compopt -o filenames 2>/dev/null",
        '        while IFS= read -r line; do COMPREPLY+=("$flag$line"); done < <(compgen "$paths" -- "$current")',
        "    fi",
        "}",
        "complete -F _fcnet fcnet",
    ])  # fmt: skip


def _bash_values(options: list[Completed]) -> str:
    """Return the words and paths that the value of one of these options can be."""
    names = " ".join(name for one in options for name in one.names)
    kinds = {one.paths for one in options}
    settings = [f"words={shlex.quote(names)}"] if names else []
    settings += ["paths=-f"] if "files" in kinds else ["paths=-d"] if "folders" in kinds else []
    return " ".join(settings) or ":"


def _zsh() -> str:
    """Return the `_arguments` of each command, for zsh."""
    lines = ["#compdef fcnet", "# Completion of fcnet in zsh, made by `fcnet completion zsh`.", "_fcnet() {"]
    lines += ["    local -a commands", "    commands=("]
    lines += [f"        {shlex.quote(f'{name}:{about}')}" for name, about in COMMANDS.items()]
    lines += ["    )", "    if (( CURRENT == 2 )); then"]
    flags = [flag for one in completed(top()) for flag in one.flags]
    lines += ["        _describe command commands", f"        compadd -- {' '.join(flags)}", "        return", "    fi"]
    lines += ["    local command=${words[2]}", "    shift words; (( CURRENT-- ))", '    case "$command" in']
    for name in COMMANDS:
        lines.append(f"        {name}) _arguments \\")
        lines += [f"            {shlex.quote(spec)} \\" for spec in _zsh_specs(completed(parser_of(name)))]
        lines += ["            ;;"]
    lines += ["    esac", "}", '[[ "${funcstack[1]}" == _fcnet ]] && _fcnet "$@" || compdef _fcnet fcnet']
    return "\n".join(lines)


def _zsh_specs(options: list[Completed]) -> Iterator[str]:
    for one in options:
        names = f"compset -P '*,'; compadd -- {' '.join(one.names)}" if one.names else ""
        paths = {"files": "_files", "folders": "_files -/", "": ""}[one.paths]
        actions = "; ".join(filter(None, (paths, names)))
        value = f":value:{{{actions}}}" if actions else ":value: "
        if not one.flags:
            yield value
        about = re.sub(r"([][\\:])", r"\\\1", one.help)
        for flag in one.flags:
            yield (
                f"{flag}{'=' if flag.startswith('--') else ''}[{about}]{value}"
                if one.takes_value
                else f"{flag}[{about}]"
            )


def _fish() -> str:
    """Return a line for each option of each command."""
    lines = ["# Completion of fcnet in fish, made by `fcnet completion fish`.", "complete -c fcnet -f"]
    start = "-n __fish_use_subcommand"
    lines += [f"complete -c fcnet {start} -a {name} -d {_fish_quoted(about)}" for name, about in COMMANDS.items()]
    lines += _fish_options(completed(top()), start)
    for name in COMMANDS:
        lines += _fish_options(completed(parser_of(name)), f"-n '__fish_seen_subcommand_from {name}'")
    return "\n".join(lines)


def _fish_options(options: list[Completed], condition: str) -> Iterator[str]:
    for one in options:
        parts = ["complete -c fcnet", condition]
        parts += [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in one.flags]
        if one.flags and one.takes_value:
            parts.append("-r -F" if one.paths == "files" else "-x")
        elif one.paths == "files":
            parts.append("-F")
        values = [*one.names, *(["(__fish_complete_directories)"] if one.paths == "folders" else [])]
        if values:
            parts.append(f'-a "{" ".join(values)}"')
        yield " ".join([*parts, f"-d {_fish_quoted(one.help)}"])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
