-- Arguments: ARGV[2], limits, 25 bytes each, '<Bddd': kind (+ 4 where denied hits count, + 8 more where only those that this limit has no room for do), and three numbers. Defines: limits, from 1; held, the set of their kinds.
--
-- 1, gcra: interval, ticks_per_us, burst. 2, fixed_window: period, requests, 0. 3, sliding_window: period, requests, quantum.

local limits, held = {}, {}
for at = 1, #ARGV[2], 25 do
  local flags, a, b, c = unpack('<Bddd', ARGV[2], at)
  local kind, counts_denied, stops = flags % 4, flags >= 4, flags >= 8
  held[kind] = true
  if kind == GCRA then
    limits[#limits + 1] = {kind = kind, counts_denied = counts_denied, interval = a, ticks_per_us = b, burst = c}
  elseif kind == WINDOW then
    limits[#limits + 1] = {kind = kind, counts_denied = counts_denied, stops = stops, period = a, requests = b}
  else
    local stamp = ceil(now / c) * c
    limits[#limits + 1] =
      {kind = kind, counts_denied = counts_denied, period = a, requests = b, quantum = c, stamp = stamp}
  end
end
