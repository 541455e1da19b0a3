"""What is done to a lane of jobs in one step, as Lua for Redis 6.2 or later.

KEYS[1] is always the stream of the lane, and where it matters KEYS[2] the sorted set of its later
tries. A job is the text `failures:message`. A script that ends a delivery first looks whether
the consumer still has it: one that another took since is left alone. Times are Redis' own, so all
processes go by one clock.
"""

from __future__ import annotations

GROUP = "jobs"

_TIME = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# A stream exists with its group or not at all: read without one, jobs put before would be lost.
_GROUP = """
if redis.call('exists', KEYS[1]) == 0 then
  redis.call('xgroup', 'create', KEYS[1], 'jobs', '0', 'mkstream')
end
"""
_OURS = """
local function ours(consumer, id)
  if redis.call('exists', KEYS[1]) == 0 then return nil end
  return redis.call('xpending', KEYS[1], 'jobs', id, id, 1, consumer)[1]
end
local function ended(key, job)
  if key ~= '' and redis.call('get', key) == job then redis.call('del', key) end
end
"""

PUT = (
    _GROUP
    + """
local key, id, ttl, limit, job = KEYS[3], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local waiting = redis.call('xlen', KEYS[1]) + redis.call('zcard', KEYS[2])
if key and waiting > 0 and redis.call('get', key) then
  redis.call('pexpire', key, ttl)
  return 0
end
if waiting >= limit then return -1 end
if key then redis.call('set', key, id, 'px', ttl) end
redis.call('xadd', KEYS[1], '*', 'job', job)
return 1
"""
)
"""Queue a job unless its key is taken (0) or the lane is full (-1).

A job that waits for long keeps its key by being put again. In an empty lane no key is taken.
"""

TAKE = (
    _TIME
    + _GROUP
    + """
local consumer, idle, claims = ARGV[1], ARGV[2], ARGV[3] == '1'
for _, job in ipairs(redis.call('zrangebyscore', KEYS[2], '-inf', now, 'limit', 0, 100)) do
  redis.call('xadd', KEYS[1], '*', 'job', job)
  redis.call('zrem', KEYS[2], job)
end
if claims then
  local stale = redis.call('xpending', KEYS[1], 'jobs', 'idle', idle, '-', '+', 1)[1]
  if stale then
    local entry = redis.call('xclaim', KEYS[1], 'jobs', consumer, idle, stale[1])[1]
    if entry and entry[2] then return {entry[1], entry[2][2], stale[4] + 1} end
    redis.call('xack', KEYS[1], 'jobs', stale[1])
  end
end
local read = redis.call('xreadgroup', 'group', 'jobs', consumer,
  'count', 1, 'streams', KEYS[1], '>')
if not read then return false end
local entry = read[1][2][1]
return {entry[1], entry[2][2], 1}
"""
)
"""Make ready what is due, then take what a dead consumer left, else what is next."""

BEAT = (
    _OURS
    + """
local lost = {}
local ttl = ARGV[2]
for i = 3, #ARGV do
  if ours(ARGV[1], ARGV[i]) then
    redis.call('xclaim', KEYS[1], 'jobs', ARGV[1], 0, ARGV[i], 'justid')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
for i = 2, #KEYS do redis.call('pexpire', KEYS[i], ttl) end
return lost
"""
)
"""Keep the deliveries that run, and their keys (KEYS[2:]); return those that others took."""

DONE = (
    _OURS
    + """
if not ours(ARGV[1], ARGV[2]) then return 0 end
redis.call('xack', KEYS[1], 'jobs', ARGV[2])
redis.call('xdel', KEYS[1], ARGV[2])
if KEYS[2] then ended(KEYS[2], ARGV[3]) end
return 1
"""
)

RETRY = (
    _TIME
    + _OURS
    + """
if not ours(ARGV[1], ARGV[2]) then return 0 end
redis.call('xack', KEYS[1], 'jobs', ARGV[2])
redis.call('xdel', KEYS[1], ARGV[2])
redis.call('zadd', KEYS[2], now + ARGV[3], ARGV[4])
if KEYS[3] then redis.call('pexpire', KEYS[3], ARGV[3] + ARGV[5]) end
return 1
"""
)

BURY = (
    _OURS
    + """
if not ours(ARGV[1], ARGV[2]) then return 0 end
redis.call('xack', KEYS[1], 'jobs', ARGV[2])
redis.call('xdel', KEYS[1], ARGV[2])
if KEYS[3] then ended(KEYS[3], ARGV[3]) end
local full = redis.call('xlen', KEYS[2]) >= tonumber(ARGV[4])
redis.call('xadd', KEYS[2], 'maxlen', ARGV[4], '*', unpack(ARGV, 5))
return full and 2 or 1
"""
)
"""Move a job to the dead letters (KEYS[2]): 2 if the oldest there had to make room."""

GIVE_BACK = (
    _OURS
    + """
if redis.call('exists', KEYS[1]) == 0 then return 0 end
local given = redis.call('xpending', KEYS[1], 'jobs', '-', '+', ARGV[2], ARGV[1])
for _, each in ipairs(given) do
  redis.call('xclaim', KEYS[1], 'jobs', ARGV[1], 0, each[1],
    'idle', ARGV[3], 'retrycount', math.max(each[4] - 1, 0), 'justid')
end
return #given
"""
)
"""Let others take at once all that a consumer has, as if it had not been delivered."""

FORGET = """
if redis.call('exists', KEYS[1]) == 0 then return 1 end
if #redis.call('xpending', KEYS[1], 'jobs', '-', '+', 1, ARGV[1]) > 0 then return 0 end
redis.call('xgroup', 'delconsumer', KEYS[1], 'jobs', ARGV[1])
return 1
"""
"""Remove a consumer that has nothing; what one has would be lost with it (0)."""
