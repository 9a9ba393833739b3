#!lua
-- Removes fields of a hash; sums among them become part of the sum of one field.
-- KEYS[1]  the hash
-- ARGV     that field, then the others
-- Answers  how many were there
local held = redis.call('HMGET', KEYS[1], unpack(ARGV))
local moved, gone = 0, {}
for i = 2, #ARGV do
  local value = held[i]
  if value then
    gone[#gone + 1] = ARGV[i]
    -- Entries and what is no sum are removed alone.
    if value ~= '' and not string.find(value, '%D') then moved = moved + value end
  end
end
if moved > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', (held[1] or 0) + moved))
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
end
return #gone
