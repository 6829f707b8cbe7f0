-- Arguments: (key, state, limit) to look, (key, used, hits, limit) to write; the limit's fields are period, in microseconds, and requests. window_look → the hits used; whether to write the state anew; what is left; what one hit takes; and for the reply the hits used and the microseconds until the window ends.

local window_look, window_write
if held[WINDOW] then
  function window_look(key, state, limit)
    local ends_in = limit.period - now % limit.period
    local used, stale = 0, false
    if state == '' then
      -- Nothing is used.
    elseif kind_of(state) == WINDOW then
      local _, ends, hits = unpack('<Bdd', state)
      if now < ends then used, stale = hits, ends ~= now + ends_in end
    else
      used = used_hits(key, state)
      stale = used > 0
    end
    return used, stale, limit.requests - used, 1, used, ends_in
  end

  function window_write(key, used, hits, limit)
    local ends_in = limit.period - now % limit.period
    put(key, pack('<Bdd', WINDOW, now + ends_in, max(min(used + hits, MAX_HITS), 0)), ends_in)
  end
end
