#!lua
-- Makes the views of idle pages part of those of (other).
-- KEYS     the hashes of pages that are kept for ever, all time first; then those of days
-- ARGV     how many are kept for ever, the views of all time below which a page may go, the pages
-- Answers  how many went: those that are in no day and have no entry beside all time
local longer, below = ARGV[1] + 0, ARGV[2] + 0
local pages = {unpack(ARGV, 3)}
local function keep(which, is_kept)
  local kept = {}
  for i, found in ipairs(which) do
    if is_kept(found) then kept[#kept + 1] = pages[i] end
  end
  pages = kept
end
local function sums(key) return redis.call('HMGET', key, unpack(pages)) end
local function is_sum(text) return text and text ~= '' and not string.find(text, '%D') end

for i = longer + 1, #KEYS do
  if #pages > 0 then keep(sums(KEYS[i]), function(found) return not found end) end
end
if #pages == 0 then return 0 end
keep(sums(KEYS[1]), function(views) return is_sum(views) and views + 0 < below end)
if #pages == 0 then return 0 end
local beside = {}
for i, page in ipairs(pages) do beside[i] = '+' .. page end
keep(redis.call('HMGET', KEYS[1], unpack(beside)), function(entry) return not entry end)
if #pages == 0 then return 0 end

-- All is read and checked before the first write: a script is not undone when it fails half way.
local others = {}
for k = 1, longer do
  local sum, found = 0, sums(KEYS[k])
  found[#found + 1] = redis.call('HGET', KEYS[k], '(other)')
  for i, views in ipairs(found) do
    if views and not is_sum(views) then
      return redis.error_reply('FOOTFALL a sum of ' .. KEYS[k] .. ' is not a plain number')
    end
    if i <= #pages then others[k] = others[k] or views end
    sum = sum + (views or 0)
  end
  others[k] = others[k] and string.format('%.0f', sum)
end
for k, sum in pairs(others) do
  if sum then
    redis.call('HDEL', KEYS[k], unpack(pages))
    redis.call('HSET', KEYS[k], '(other)', sum)
    redis.call('HINCRBY', KEYS[k], '#revision', 1)
  end
end
return #pages
