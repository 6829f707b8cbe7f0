-- KEYS: one a counter, in the groups' order. ARGV: now_us ('' = this server's clock), limits, groups (both packed, see below). Reply: now_us, then a group: admitted, then a counter: whole, rest (limiter/counters.py, Level).
--
-- limits, 25 bytes each, '<Bddd': kind (+ 4 where denied hits count), a, b, c. Kind 1, gcra: a = emission interval in
--     ticks, b = ticks per microsecond, c = burst. Kind 2, fixed_window: a = period_us, b = limit, c = 0.
-- groups, '<I4I4' calls, counters, then '<I4I4' a counter: index into limits from 0, cost.
-- State: '<Bddddd' 1, at_us, whole_us, rest, interval, ticks_per_us: at at_us the backlog was whole_us + rest / ticks_per_us
--     microseconds; or '<Bdd' 2, end_us, used. A state in other terms than the limit's, or from a clock that was ahead of
--     this one, is put into the terms of here and now and written so, even on a denial: what the reply tells is what holds.
-- Numbers are doubles: integers up to 2^53 are exact. Never print one with tostring or .., which keep 14 digits.

local call, pcall, pack, unpack = redis.call, redis.pcall, struct.pack, struct.unpack
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local GCRA, WINDOW = 1, 2
local MAX_BACKLOG_US = 2 ^ 52
local MAX_HITS = 2 ^ 53 - 1

local now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- n * to / from, rounded up; in lowest terms and without the whole part, so that the product stays below 2^53.
local function scale(n, from, to)
  local a, b = from, to
  while b > 0 do a, b = b, a % b end
  from, to = from / a, to / a
  return floor(n / from) * to + ceil(n % from * to / from)
end

-- Both: what a limit has used of its capacity, and whether the state must be written anew.

-- In ticks. A state of another limit counts as so many hits, each at this interval.
local function gcra_level(state, interval, ticks_per_us)
  if #state == 41 then
    local kind, at, whole, rest, old_interval, old_ticks_per_us = unpack('<Bddddd', state)
    local level = kind == GCRA and (whole - max(now - at, 0)) * old_ticks_per_us + rest or 0
    if not (level > 0) then return 0, false end
    if interval == old_interval and ticks_per_us == old_ticks_per_us then return level, now < at end
    return min(scale(level, old_interval, interval), MAX_BACKLOG_US * ticks_per_us), true
  end
  if #state == 17 then
    local kind, ends, used = unpack('<Bdd', state)
    if kind == WINDOW and now < ends then return min(used * interval, MAX_BACKLOG_US * ticks_per_us), true end
  end
  return 0, false
end

-- In hits.
local function window_used(state, ends)
  if #state == 17 then
    local kind, old_ends, used = unpack('<Bdd', state)
    if kind == WINDOW and now < old_ends then return used, old_ends ~= ends end
  elseif #state == 41 then
    local kind, at, whole, rest, interval, ticks_per_us = unpack('<Bddddd', state)
    local level = kind == GCRA and (whole - max(now - at, 0)) * ticks_per_us + rest or 0
    if level > 0 then return min(ceil(level / interval), MAX_HITS), true end
  end
  return 0, false
end

local limits, groups = ARGV[2], ARGV[3]
local reply, length = {now}, 1
local at, key_index = 1, 0
local levels, stale, indices, costs = {}, {}, {}, {}

while at <= #groups do
  local calls, size
  calls, size, at = unpack('<I4I4', groups, at)
  local admitted = calls
  length = length + 1
  local admitted_at = length
  for i = 1, size do
    local index, cost
    index, cost, at = unpack('<I4I4', groups, at)
    local flags, a, b, c = unpack('<Bddd', limits, index * 25 + 1)
    -- pcall: a value of another type, from whoever shares this database, is no state.
    local state = pcall('GET', KEYS[key_index + i])
    if type(state) ~= 'string' then state = '' end
    if flags % 4 == GCRA then
      local level
      level, stale[i] = gcra_level(state, a, b)
      levels[i] = level
      reply[length + 1] = floor(level / b)
      reply[length + 2] = level % b
      admitted = min(admitted, floor((c * a - level) / (cost * a)))
    else
      local used
      used, stale[i] = window_used(state, now - now % a + a)
      levels[i] = used
      reply[length + 1] = used
      reply[length + 2] = a - now % a
      admitted = min(admitted, floor((b - used) / cost))
    end
    length = length + 2
    indices[i], costs[i] = index, cost
  end

  if admitted < 0 then admitted = 0 end
  reply[admitted_at] = admitted
  for i = 1, size do
    local flags, a, b = unpack('<Bdd', limits, indices[i] * 25 + 1)
    local hits = (flags >= 4 and calls or admitted) * costs[i]
    if hits > 0 or stale[i] then
      local state, for_us
      if flags % 4 == GCRA then
        local level = min(levels[i] + hits * a, MAX_BACKLOG_US * b)
        local whole = floor(level / b)
        state, for_us = pack('<Bddddd', GCRA, now, whole, level % b, a, b), whole + 1
      else
        for_us = a - now % a
        state = pack('<Bdd', WINDOW, now + for_us, min(levels[i] + hits, MAX_HITS))
      end
      call('SET', KEYS[key_index + i], state, 'PX', ceil(for_us / 1000))
    end
  end
  key_index = key_index + size
end

return reply
