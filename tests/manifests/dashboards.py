"""Reads dashboards by the types that Grafana publishes of its schema, and writes them again: what is not in a type is
lost on the way, and what is of another type fails or comes out another."""

import json
import re
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana writes and reads these, and its types do not have them: of annotations those of the Prometheus data source, of a
# variable the text that the list of variables shows.
UNTYPED = re.compile(
    r"\.annotations\.list\[\d+\]\.(step|textFormat|titleFormat|useValueForTime)|\.templating\.list\[\d+\]\.definition"
)


def differences(before, after, path=""):
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from differences(value, after[key], f"{path}.{key}")
            elif value not in (None, [], {}):
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after)):
            yield from differences(one, other, f"{path}[{place}]")
    elif before != after or type(before) is not type(after):
        yield path


register_default_plugins()
faults = []
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        text = file.read()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(text))))
    faults += [f"{name}: {path}" for path in differences(json.loads(text), again) if not UNTYPED.fullmatch(path)]
if faults:
    sys.exit("not in Grafana's schema:\n" + "\n".join(faults))
