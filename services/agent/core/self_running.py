"""Which files of a project run code, or steer agents, without anybody calling them. Pure.

A write to one is a command by another way: `core.fsmonitor` in `.git/config` runs at the next
`git status`, an editor's tasks at the next opening of the folder, `.envrc` at the next `cd`.
"""

from pathlib import PurePath

_DIRECTORIES = frozenset(
    {
        ".git", ".hg", ".svn", ".jj", ".githooks", ".husky",
        ".vscode", ".idea", ".zed", ".fleet", ".devcontainer", ".vim", ".nvim",
        ".github", ".gitlab", ".gitea", ".forgejo", ".circleci", ".buildkite", ".woodpecker",
        ".teamcity", ".ci", ".cargo", ".yarn", ".direnv", ".mise", ".config",
        ".claude", ".cursor", ".agents", ".codex", ".gemini", ".continue", ".ssh",
        ".opencode", ".roo", ".windsurf", ".kiro", ".amazonq", ".junie", ".goose", ".trae",
        ".venv", "venv", "node_modules", ".local",
    }
)  # fmt: skip
_FILES = frozenset(
    {
        ".git", ".gitconfig", ".gitmodules", ".gitattributes", ".hgrc",
        ".envrc", ".env", ".mise.toml", "mise.toml", ".tool-versions", ".autoenv",
        ".profile", ".login", ".logout", ".inputrc", ".exrc", ".nvimrc", ".vimrc", ".nvim.lua",
        ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnp.cjs", ".pypirc", ".gdbinit", ".lldbinit",
        ".pre-commit-config.yaml", "lefthook.yml", ".lefthook.yml", ".overcommit.yml",
        ".gitlab-ci.yml", ".travis.yml", ".drone.yml", ".cirrus.yml", ".woodpecker.yml",
        "jenkinsfile", "azure-pipelines.yml", "bitbucket-pipelines.yml", "appveyor.yml",
        "sitecustomize.py", "usercustomize.py", ".mcp.json", "mcp.json",
        ".devcontainer.json", ".bazelrc", ".dir-locals.el", ".rprofile", ".irbrc", ".pryrc",
        ".psqlrc", ".sqliterc", ".tmux.conf", ".screenrc", ".xprofile", ".xsession", ".xinitrc",
        ".pam_environment", ".aider.conf.yml", "opencode.json", ".goosehints", ".rules",
        "head",  # by which git takes a directory for a repository, with a `config` that runs
        "agents.md", "agents.override.md", "claude.md", "claude.local.md", "gemini.md",
        ".cursorrules", ".windsurfrules", ".clinerules",
    }
)  # fmt: skip
_SHELLS = ("bash", "zsh", "ksh", "csh", "tcsh", "fish")
_SUFFIXES = (".pth", ".code-workspace", ".sublime-project")


def runs_by_itself(path: PurePath, root: PurePath) -> bool:
    """Says whether a file below a directory may run, or be obeyed, without being called.

    Letters' case counts for nothing: on some disks it names the same file.

    Args:
        path: resolved.
        root: the resolved directory of the project; its own name does not count.
    """
    *directories, name = (part.lower() for part in path.relative_to(root).parts)
    if not _DIRECTORIES.isdisjoint(directories) or name in _FILES or name.endswith(_SUFFIXES):
        return True
    return name.startswith(".env.") or any(name.startswith(f".{shell}") for shell in _SHELLS)
