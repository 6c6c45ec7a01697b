# mypy: ignore-errors
"""The text of a document from its editing commands: an object that is made of JSON and becomes JSON again."""


class Text:
    """A text under the pen, with the place where the last change was made."""

    def __init__(self, state):
        self.characters = list((state or {}).get("text", ""))
        self.position = (state or {}).get("position", 0)

    async def play(self, commands):
        """Carry out one bundle of commands."""
        for command in commands:
            if command["ty"] == "mlti":
                await self.play(command["mts"])
            elif command["ty"] == "is":
                start = command["ibi"] - 1
                self.characters += "\0" * (start - len(self.characters))
                self.characters[start:start] = command["s"]
                self.position = start + len(command["s"])
            elif command["ty"] == "ds":
                del self.characters[command["si"] - 1 : command["ei"]]
                self.position = command["si"] - 1

    @property
    def json(self):
        """The state to keep."""
        return {"text": "".join(self.characters), "position": self.position}
