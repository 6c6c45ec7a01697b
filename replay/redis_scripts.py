"""What `replay.redis_store` asks of Redis, as Lua scripts: each runs as a whole, with nothing between its commands.

KEYS are the head, then (values, order) of each table; COMMIT has one more, the undo record that it writes; reading
scripts are given one table only.  Every script first compares the rows that the head counts with what is there, and
answers 0 (COMMIT: -1) as *whole* where they differ.

A script is refused as a whole where memory is full: its first write is one that needs memory.  It is replicated, and
written to an append-only file, as one transaction.
"""

from __future__ import annotations

from typing import Final

_WHOLE: Final = """
local function whole(number, values, order)
  local rows = tonumber(redis.call('HGET', KEYS[1], number) or 0)
  if redis.call('HLEN', values) == rows and redis.call('ZCARD', order) == rows then return rows end
  return nil
end
local token = redis.call('HGET', KEYS[1], 'commit') or ''
"""

LOOK: Final = (
    _WHOLE
    + """
local counts = {}
for number = 1, (#KEYS - 1) / 2 do
  counts[number] = whole(number, KEYS[2 * number], KEYS[2 * number + 1])
  if not counts[number] then return {token, 0, {}} end
end
return {token, 1, counts}
"""
)
"""→ token, whole, rows of each table."""

_READ: Final = (
    _WHOLE
    + """
if not whole(ARGV[1], KEYS[2], KEYS[3]) then return {token, 0, {}} end
local size = tonumber(ARGV[2])
local function value_of(key)
  if size == 0 then return '' end
  local value = redis.call('HGET', KEYS[2], key)
  if value and size > 0 then return string.sub(value, 1, size) end
  return value
end
"""
)

GET: Final = (
    _READ
    + """
local values = {}
for at = 3, #ARGV do values[at - 2] = value_of(ARGV[at]) end
return {token, 1, values}
"""
)
"""number of the table, size (-1: all), keys → token, whole, values."""

PAGE: Final = (
    _READ
    + """
local low, high, rows, room = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local found
if ARGV[7] == '1' then found = redis.call('ZREVRANGEBYLEX', KEYS[3], high, low, 'LIMIT', 0, rows)
else found = redis.call('ZRANGEBYLEX', KEYS[3], low, high, 'LIMIT', 0, rows) end
local more, keys, values = #found == rows and 1 or 0, {}, {}
for at, key in ipairs(found) do
  local value = value_of(key)
  if not value then return {token, 0, {}} end
  keys[at], values[at] = key, value
  room = room - #value
  if room < 0 and at < #found then more = 1 break end
end
return {token, 1, {more, keys, values}}
"""
)
"""number, size, low, high, rows, bytes, reverse → token, whole, (whether there is more, keys, values)."""

COMMIT: Final = (
    _WHOLE
    + """
local since, new, undo_s, expire_s, about = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
if token == new then return 1 end
if token ~= since then return 0 end
local tables, undo, rows = (#KEYS - 2) / 2, KEYS[#KEYS], {}
for number = 1, tables do
  rows[number] = whole(number, KEYS[2 * number], KEYS[2 * number + 1])
  if not rows[number] then return -1 end
end
redis.call('HSET', KEYS[1], 'commit', new, 'about', about)
if undo_s > 0 then redis.call('HSET', undo, 'next', new) end
for at = 6, #ARGV, 4 do
  local number, key = tonumber(ARGV[at]), ARGV[at + 1]
  local values, order = KEYS[2 * number], KEYS[2 * number + 1]
  local old = redis.call('HGET', values, key)
  if undo_s > 0 then redis.call('HSETNX', undo, number .. ':' .. key, old and ('+' .. old) or '-') end
  if ARGV[at + 2] == '1' then
    if not old then
      redis.call('ZADD', order, 0, key)
      rows[number] = rows[number] + 1
    end
    redis.call('HSET', values, key, ARGV[at + 3])
  elseif old then
    redis.call('HDEL', values, key)
    redis.call('ZREM', order, key)
    rows[number] = rows[number] - 1
  end
end
if undo_s > 0 then redis.call('EXPIRE', undo, undo_s) end
for number = 1, tables do redis.call('HSET', KEYS[1], number, rows[number]) end
for at = 1, #KEYS - 1 do redis.call('EXPIRE', KEYS[at], expire_s) end
return 1
"""
)
"""since, token, seconds of the undo record (0: none), seconds until all expires, about, then number, key, 1 to set or 0
to delete, value of each write → 1 done (before, perhaps), 0 there was another commit, -1 not whole."""

TOUCH: Final = "for at = 1, #KEYS do redis.call('EXPIRE', KEYS[at], ARGV[1]) end return 1"
