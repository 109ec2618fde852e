"""The one style sheet of the approval pages: light and dark, wide and narrow, without a script or an image.

Must not hold a word of a page.

Trust: it is ours whole; the pages' policy header allows it by its hash.
"""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --line: #d3d8e0; --ink: #1b2330; --soft: #56606e; --paper: #fff; --back: #f3f5f8;
  --yes: #17633a; --onyes: #fff; --no: #9b1c1c; --note: #eef3ff; --bar: #1b2330; --onbar: #fff; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4352; --ink: #e8ecf2; --soft: #a9b3c1; --paper: #171c25;
  --back: #0f131a; --yes: #7fd6a3; --onyes: #0f131a; --no: #ff9d9d; --note: #1e2a44; --bar: #171c25;
  --onbar: #e8ecf2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
header { background: var(--bar); color: var(--onbar); padding: .7rem 1.25rem; font-weight: 700; }
header span { font-weight: 400; opacity: .75; }
header b { float: right; font-weight: 400; }
main { max-width: 46rem; margin: 1.5rem auto; padding: 1.25rem 1.5rem 1.75rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: .75rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: 0 0 .75rem; overflow-wrap: anywhere; }
.soft, small { color: var(--soft); font-weight: 400; }
.said { border-left: .3rem solid var(--soft); background: var(--note); padding: .6rem .9rem; font-weight: 600; }
.said.yes { border-color: var(--yes); }
.said.no { border-color: var(--no); }
.wide { overflow: auto; max-height: 28rem; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .75rem; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; white-space: nowrap; }
th small { display: block; white-space: normal; }
thead th { position: sticky; top: 0; background: var(--paper); }
pre { margin: 0; font: .95em/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.wide > pre { padding: .6rem .75rem; }
code { font-family: ui-monospace, monospace; font-size: .93em; overflow-wrap: anywhere; }
h2 + .wide { margin-bottom: 1.25rem; }
.acts { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.25rem; }
button, .button { font: inherit; font-weight: 700; padding: .65rem 1.6rem; border-radius: .5rem; cursor: pointer;
  border: 2px solid var(--yes); text-decoration: none; }
.yes, .button { background: var(--yes); color: var(--onyes); }
button.no { background: transparent; color: var(--no); border-color: var(--no); }
.said.yes, .said.no { background: var(--note); color: var(--ink); }
:focus-visible { outline: 3px solid var(--ink); outline-offset: 2px; }
@media (max-width: 34rem) { main { margin: 0; border: 0; border-radius: 0; } button, .button { width: 100%;
  text-align: center; } }
"""
