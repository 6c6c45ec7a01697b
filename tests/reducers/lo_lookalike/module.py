# mypy: ignore-errors
"""What the entry point names."""

import learning_observer.communication_protocol.integration
import learning_observer.communication_protocol.query as q
import learning_observer.downloads as d
from learning_observer.dash_integration import static_url, thirdparty_url
from learning_observer.stream_analytics.helpers import EventField, KeyField, Scope

from tests.reducers.lo_lookalike import pages, reducers

NAME = "Lookalike"

WRITING = "org.mitros.writing_analytics"
student_scope = Scope([KeyField.STUDENT])


@learning_observer.communication_protocol.integration.publish_function("lookalike.roster")
async def roster(runtime, course_id):
    """Return the roster of a course."""
    return await learning_observer.rosters.courseroster(runtime, course_id)


EXECUTION_DAG = {
    "execution_dag": {
        "roster": q.call("lookalike.roster")(runtime=q.parameter("runtime")),
        "texts": q.select(q.keys("lookalike.text", STUDENTS=q.variable("roster")), fields=q.SelectFields.All),
    },
    "exports": {"texts": {"returns": "texts", "parameters": ["course_id"]}},
}

REDUCERS = [
    {"context": WRITING, "scope": reducers.doc_scope, "function": reducers.text, "default": {"text": ""}},
    {"context": WRITING, "scope": student_scope, "function": reducers.history},
    {"context": "org.mitros.dynamic-assessment", "scope": student_scope, "function": reducers.history},
    # As it happens in the wild: the decorator names the document, the list does not.
    {"context": WRITING, "scope": student_scope, "function": reducers.saves},
    {"context": WRITING, "scope": reducers.doc_scope, "function": reducers.opened},
    {"context": WRITING, "scope": reducers.doc_scope, "function": reducers.time_by_document},
    {"context": WRITING, "scope": reducers.tab_scope, "function": reducers.time_by_tab},
    {"context": WRITING, "scope": reducers.doc_scope, "function": reducers.loud, "version": 3},
    {"context": "org.example.broken", "function": reducers.patient},
    {"context": "org.example.broken", "function": reducers.stored},
    {"context": "org.example.broken", "function": reducers.fetched},
    {"context": WRITING, "scope": Scope([EventField("doc_id")]), "function": reducers.readers},
]

DASH_PAGES = [
    {
        "MODULE": pages,
        "LAYOUT": pages.layout,
        "CSS": [thirdparty_url("css/fontawesome_all.css")],
        "SCRIPTS": [static_url("liblo.js")],
    }
]
THIRD_PARTY = {"css/fontawesome_all.css": d.FONTAWESOME_CSS}
