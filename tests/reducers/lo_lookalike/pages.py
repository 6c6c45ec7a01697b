# mypy: ignore-errors
"""A dashboard, as modules have them beside their reducers."""

import dash_bootstrap_components as dbc
import lo_dash_react_components as lodrc
from dash import Input, Output, callback, clientside_callback, html

_prefix = "lookalike"


class Banner(lodrc.Panel):
    """Something derived from a component."""


def layout():
    """Draw the page."""
    return html.Div([html.H1("Lookalike"), dbc.InputGroup([lodrc.Status(id=f"{_prefix}-status")])])


clientside_callback("void 0", Output(lodrc.Status.ids.socket(_prefix), "send"), Input("location", "hash"))


@callback(Output("list", "children"), Input("store", "data"))
def fill(data):
    """Fill the list."""
    return [html.Li(each) for each in data]
