-- Evaluates many display filters in one pass: the first argument names a file of
-- filters, one a line. Prints "MATCH line frame" for each frame that matches.
local n = 0
for filter in io.lines((...)) do
  n = n + 1
  local line = n
  local tap = Listener.new("frame", filter)
  function tap.packet(pinfo)
    io.write("MATCH ", line, " ", pinfo.number, "\n")
  end
end
