"""The clock of a module that was written for the Learning Observer: it shows when the event was received.

Such reducers ask for the time; ours cannot.  Refusing would leave them useless, and the real time would give
another state at each replay.  But the time that they mean is the time at which the server takes in the event,
and that stands in the log.  So their modules are given stand-ins for `time` and `datetime`, which answer with
the received time of the event at hand: same log, same states.

>>> import datetime
>>> names = {"dt": datetime, "date": datetime.date, "n": 7}
>>> adopt(names)
>>> token = EVENT_MS.set(1_000)
>>> str(names["dt"].datetime.now()), names["date"].today().isoformat(), names["n"]
('1970-01-01 00:00:01', '1970-01-01', 7)
>>> EVENT_MS.reset(token)

Local time is UTC here, on every machine, and a time without a zone is read as UTC.  Stand-ins are put in place
of the names a module has imported (`adopt`); code that gets at the clock in another way meets the guard that
all reducers have.  Who sets the time: `reducers.lo_reducer`.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

EVENT_MS: ContextVar[int] = ContextVar("EVENT_MS")
"""Unix milliseconds at which the event at hand was received; not set outside a fold."""


def adopt(namespace: dict[str, Any]) -> None:
    """Put stand-ins in place of `time`, `datetime` and what was imported from them, in a module's globals."""
    for name, value in list(namespace.items()):
        if (found := _stand_in(value)) is not None:
            namespace[name] = found


def event_seconds() -> float:
    """Return the received time of the event at hand, in Unix seconds; RuntimeError where there is none."""
    return event_ms() / 1_000


def event_ms() -> int:
    """Return the received time of the event at hand, in Unix milliseconds; RuntimeError where there is none."""
    try:
        return EVENT_MS.get()
    except LookupError:
        raise RuntimeError("there is no event: a reducer has the time of its event, and no other") from None


class _LikeDatetime(type):
    """Lets `isinstance` take a datetime for what it is, whichever class made it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, dt.datetime)


class _LikeDate(type):
    """As above, for dates."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, dt.date)


class EventDatetime(dt.datetime, metaclass=_LikeDatetime):
    """`datetime.datetime` by the event's clock, in a world where local time is UTC."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> EventDatetime:
        """Return the event's time, in `tz`, or as UTC without a zone."""
        return cls.fromtimestamp(event_seconds(), tz)

    @classmethod
    def utcnow(cls) -> EventDatetime:
        """Return the event's time as UTC without a zone."""
        return cls.fromtimestamp(event_seconds())

    @classmethod
    def today(cls) -> EventDatetime:
        """Return the event's time as UTC without a zone."""
        return cls.fromtimestamp(event_seconds())

    @classmethod
    def fromtimestamp(cls, timestamp: float, tz: dt.tzinfo | None = None) -> EventDatetime:
        """Return a time of Unix seconds, in `tz`, or as UTC without a zone."""
        moment = super().fromtimestamp(timestamp, tz or dt.UTC)
        return moment if tz is not None else moment.replace(tzinfo=None)

    def timestamp(self) -> float:
        """Return Unix seconds; without a zone, the time is UTC."""
        return dt.datetime.timestamp(self if self.tzinfo is not None else self.replace(tzinfo=dt.UTC))

    def astimezone(self, tz: dt.tzinfo | None = None) -> EventDatetime:
        """Return the same moment in `tz`, else in UTC."""
        moment = self if self.tzinfo is not None else self.replace(tzinfo=dt.UTC)
        return super(EventDatetime, moment).astimezone(tz or dt.UTC)


class EventDate(dt.date, metaclass=_LikeDate):
    """`datetime.date` by the event's clock, in UTC."""

    @classmethod
    def today(cls) -> EventDate:
        """Return the day of the event, in UTC."""
        return cls.fromtimestamp(event_seconds())

    @classmethod
    def fromtimestamp(cls, timestamp: float) -> EventDate:
        """Return the day of some Unix seconds, in UTC."""
        day = dt.datetime.fromtimestamp(timestamp, dt.UTC)
        return cls(day.year, day.month, day.day)


def _stand_in(value: Any) -> Any:
    """Return what stands in for `value`, or None where nothing does."""
    if value is dt.datetime:
        return EventDatetime
    if value is dt.date:
        return EventDate
    if value is dt:
        return _datetime_module()
    if isinstance(value, ModuleType) and value.__name__ == "time" and not isinstance(value, _Time):
        return _Time(value)
    if isinstance(value, BuiltinFunctionType | FunctionType) and value.__module__ == "time":
        return _named_clock(value.__name__)
    return None


@cache
def _datetime_module() -> ModuleType:
    module = ModuleType("event_datetime", "The datetime module, by the clock of the event.")
    module.__dict__.update({name: value for name, value in vars(dt).items() if not name.startswith("__")})
    module.__dict__.update(datetime=EventDatetime, date=EventDate)
    return module


def _named_clock(name: str) -> Callable[..., Any] | None:
    """Return the stand-in of a function of `time` that was imported by its name; None for a pure one."""
    clocks: dict[str, Callable[..., Any]] = {
        **dict.fromkeys(("time", "monotonic", "perf_counter", "process_time", "thread_time"), event_seconds),
        **dict.fromkeys(
            ("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns"),
            lambda: event_ms() * 1_000_000,
        ),
        "gmtime": _utc,
        "localtime": _utc,
        "mktime": lambda moment: float(calendar.timegm(moment)),
        "sleep": _no_sleep,
    }
    return clocks.get(name)


def _utc(seconds: float | None = None) -> Any:
    """Return a `time.struct_time` in UTC, of the event at hand unless `seconds` are given."""
    at = event_seconds() if seconds is None else seconds
    return dt.datetime.fromtimestamp(int(at // 1), dt.UTC).utctimetuple()


def _no_sleep(seconds: float) -> None:
    raise RuntimeError(f"time.sleep({seconds}): a reducer cannot wait; keep what you wait for in the state")


class _Time(ModuleType):
    """The module `time`: clocks are the event's, the zone is UTC, the rest is as it was."""

    timezone = altzone = daylight = 0
    tzname = ("UTC", "UTC")

    def __init__(self, original: ModuleType) -> None:
        super().__init__("event_time", "The time module, by the clock of the event.")
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        clock = _named_clock(name)
        return getattr(self.__dict__["_original"], name) if clock is None else clock

    def strftime(self, layout: str, moment: Any = None) -> str:
        """Return `moment`, else the event's time, by the layout."""
        return str(self._original.strftime(layout, _utc() if moment is None else moment))

    def asctime(self, moment: Any = None) -> str:
        """Return `moment`, else the event's time, as such a text as 'Thu Jan  1 00:00:01 1970'."""
        return str(self._original.asctime(_utc() if moment is None else moment))

    def ctime(self, seconds: float | None = None) -> str:
        """Return Unix seconds, else the event's time, as `asctime` does."""
        return self.asctime(_utc(seconds))
