-- KEYS: one a counter, in the groups' order. ARGV: now_us ('' = this server's clock), limits, groups (both packed, see below). Reply: now_us, then a group: admitted, then a counter: whole, rest (limiter/counters.py, Level).
--
-- limits, 25 bytes each, '<Bddd': kind (+ 4 where denied hits count), a, b, c. Kind 1, gcra: a = emission interval in
--     ticks, b = ticks per microsecond, c = burst. Kind 2, fixed_window: a = period_us, b = limit, c = 0.
-- groups, '<I4I4' calls, counters, then '<I4I4' a counter: index into limits from 0, cost.
-- State: '<Bdddd' 1, tat_us, rest, interval, ticks_per_us, where tat = tat_us + rest / ticks_per_us microseconds,
--     or '<Bdd' 2, end_us, used. Either is read under any limit: what is used stays used when the limit changes.
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

-- The backlog in ticks of a gcra limit. A state of another limit is rescaled: as many hits, each at this interval.
local function gcra_level(state, interval, ticks_per_us)
  if #state == 33 then
    local kind, tat, rest, old_interval, old_ticks_per_us = unpack('<Bdddd', state)
    local level = kind == GCRA and (tat - now) * old_ticks_per_us + rest or 0
    if not (level > 0) then return 0 end
    if interval == old_interval and ticks_per_us == old_ticks_per_us then return level end
    return min(scale(level, old_interval, interval), MAX_BACKLOG_US * ticks_per_us)
  end
  if #state == 17 then
    local kind, ends, used = unpack('<Bdd', state)
    if kind == WINDOW and now < ends then return min(used * interval, MAX_BACKLOG_US * ticks_per_us) end
  end
  return 0
end

-- The hits used in a fixed window.
local function window_used(state)
  if #state == 17 then
    local kind, ends, used = unpack('<Bdd', state)
    if kind == WINDOW and now < ends then return used end
  elseif #state == 33 then
    local kind, tat, rest, interval, ticks_per_us = unpack('<Bdddd', state)
    local level = kind == GCRA and (tat - now) * ticks_per_us + rest or 0
    if level > 0 then return min(ceil(level / interval), MAX_HITS) end
  end
  return 0
end

local limits, groups = ARGV[2], ARGV[3]
local reply, length = {now}, 1
local at, key_index = 1, 0
local levels, indices, costs = {}, {}, {}

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
      local level = gcra_level(state, a, b)
      levels[i] = level
      reply[length + 1] = floor(level / b)
      reply[length + 2] = level % b
      admitted = min(admitted, floor((c * a - level) / (cost * a)))
    else
      local used = window_used(state)
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
    if hits > 0 then
      local state, until_us
      if flags % 4 == GCRA then
        local level = min(levels[i] + hits * a, MAX_BACKLOG_US * b)
        local tat = now + floor(level / b)
        state, until_us = pack('<Bdddd', GCRA, tat, level % b, a, b), tat + 1
      else
        until_us = now - now % a + a
        state = pack('<Bdd', WINDOW, until_us, min(levels[i] + hits, MAX_HITS))
      end
      call('SET', KEYS[key_index + i], state, 'PX', max(ceil((until_us - now) / 1000), 1))
    end
  end
  key_index = key_index + size
end

return reply
