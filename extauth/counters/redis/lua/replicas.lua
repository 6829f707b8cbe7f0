-- KEYS: the heartbeats of all replicas, the report of one. ARGV: now_us (see state.lua), the ID of that replica, its address, the rest of its line ('' = it leaves), its report ('' = none). Reply: the lines of the others.
--
-- A line: ID AT_MS ADDRESS …; ADDRESS is - where there is none. It holds for LIVES_MS, or until another replica has its address.
-- The workers of a replica have one address, and IDs that begin alike up to the letter w: REPLICAwNUMBER.
-- The newest stand first, and the oldest have no room beyond MOST bytes. A report is kept for as long as a line.

local LIVES_MS, MOST = 10000, 16384
local id, address, rest = ARGV[2], ARGV[3], ARGV[4]
local at, others, lines = floor(now / 1000), {}, {}
local replica = string.match(id, '^%x+w') or id
if rest ~= '' then lines[1] = id .. string.format(' %.0f ', at) .. address .. ' ' .. rest end
local size = #(lines[1] or '')
local held = pcall('GET', KEYS[1])
for line in string.gmatch(type(held) == 'string' and held or '', '[^\n]+') do
  local its_id, its_at, its_address = string.match(line, '^(%w+) (%d+) (%S+)')
  local lives = its_id and its_id ~= id and math.abs(at - its_at) < LIVES_MS
  local worker = lives and string.sub(its_id, 1, #replica) == replica
  if lives and (worker or its_address == '-' or its_address ~= address) and size + 1 + #line <= MOST then
    size = size + 1 + #line
    lines[#lines + 1] = line
    others[#others + 1] = line
  end
end
if #lines > 0 then
  call('SET', KEYS[1], table.concat(lines, '\n'), 'PX', LIVES_MS)
else
  call('DEL', KEYS[1])
end
if ARGV[5] ~= '' then
  call('SET', KEYS[2], ARGV[5], 'PX', LIVES_MS)
else
  call('DEL', KEYS[2])
end
return table.concat(others, '\n')
