-- KEYS: one a counter. ARGV: now_us, limits (see limits.lua), what is owed. Adds hits that were counted elsewhere. Reply: 1.
--
-- What is owed, a counter: '<I4I4' index into limits from 0, how many numbers, and these, '<d': gcra: ticks; fixed_window: the end of
--     the window and the hits in it; sliding_window: instant, hits, instant, hits, …

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
