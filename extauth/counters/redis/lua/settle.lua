-- KEYS: one a counter. ARGV: now_us, limits (see limits.lua), what is owed. Adds hits that were counted elsewhere. Reply: 1.
--
-- What is owed, a counter: '<I4I4' index into limits from 0, how many numbers, and these, '<d': gcra: ticks; fixed_window: the end of
--     the window and the hits in it; sliding_window: instant, hits, instant, hits, …

local function gcra_settle(key, state, limit, ticks)
  gcra_write(key, gcra_look(key, state, limit) + ticks, 0, limit)
end

local function window_settle(key, state, limit, ends, hits)
  local used, _, _, _, _, ends_in = window_look(key, state, limit)
  if ends == now + ends_in then window_write(key, used + hits, 0, limit) end
end

-- Puts hits into the log at their own instants: `owed` is {at, hits, at, hits, …}, in order.
local function sliding_settle(key, state, limit, owed)
  local entry, search, read_log = log_functions()
  local period = limit.period
  local used, _, _, _, _, _, log = sliding_look(key, state, limit)
  if not log and used > 0 then  -- in other terms, or from a clock that was ahead
    sliding_write(key, nil, used, 0, limit)
    log = read_log(key, call('GETRANGE', key, 0, HEAD), period)
  end
  local count, dropped, base, total = 0, 0, 0, 0
  if log then count, dropped, base, total = log[COUNT], log[DROPPED], log[BASE], log[TOTAL] end
  local first = search(key, dropped, count, owed[1])
  if first - dropped >= MAX_ENTRIES then first = first - 1 end  -- what comes behind a full log goes into its last entry
  local before = first > dropped and call('GETRANGE', key, HEAD + dropped * ENTRY, HEAD + first * ENTRY - 1) or ''
  local later = first < count and call('GETRANGE', key, HEAD + first * ENTRY, -1) or ''
  local kept = first - dropped
  if kept > 0 then
    local _, up_to = entry(key, first - 1)
    total = up_to
  else
    total = base
  end
  local merged, newest, previous = {}, kept > 0 and entry(key, first - 1) or 0, total
  local at, its_total
  local position, i = 1, 1
  if position <= #later then at, its_total, position = unpack('<dd', later, position) end
  while at or owed[i] do
    local time, hits
    if at and (not owed[i] or at <= owed[i]) then
      time, hits, previous = at, its_total - previous, its_total
      at = nil
      if position <= #later then at, its_total, position = unpack('<dd', later, position) end
    else
      time, hits = min(owed[i], limit.stamp), owed[i + 1]
      i = i + 2
    end
    if time > now - period then
      total, newest = min(total + hits, MAX_HITS), max(newest, time)
      local full = kept + #merged >= MAX_ENTRIES
      merged[full and #merged > 0 and #merged or #merged + 1] = pack('<dd', newest, total)
    end
  end
  put_log(key, period, 0, base, total, newest, before .. table.concat(merged))
end

local packed, at = ARGV[3], 1
for i = 1, #KEYS do
  local key, index, size = KEYS[i], nil, nil
  index, size, at = unpack('<I4I4', packed, at)
  local numbers = {}
  for n = 1, size do
    numbers[n], at = unpack('<d', packed, at)
  end
  local held_to = limits[index + 1]
  local state
  if held_to.kind == SLIDING then state = pcall('GETRANGE', key, 0, HEAD) else state = pcall('GET', key) end
  if type(state) ~= 'string' then state = '' end  -- a value of another type is no state
  if held_to.kind == GCRA then
    gcra_settle(key, state, held_to, numbers[1])
  elseif held_to.kind == WINDOW then
    window_settle(key, state, held_to, numbers[1], numbers[2])
  else
    sliding_settle(key, state, held_to, numbers)
  end
end
return 1
