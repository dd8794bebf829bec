package ipset

// scanLine4 reads the lines that large files consist of: an IPv4 address,
// prefix or range that is right, at the beginning of the line, and nothing
// behind it but space and a comment. Whatever else a line holds, ok is false and
// scanElement judges it, at a third of the speed.
func scanLine4(line []byte) (r range4, ok bool) {
	first, n := scanPlain4(line, 0)
	if n == 0 {
		return 0, false
	}
	last := first
	if n < len(line) {
		switch line[n] {
		case '/':
			length, end := scanDecimal(line, n+1)
			if length > 32 {
				return 0, false
			}
			host := uint32(1<<(32-length) - 1)
			if first&host != 0 {
				return 0, false
			}
			last, n = first|host, end
		case '-':
			if last, n = scanPlain4(line, n+1); n == 0 || last < first {
				return 0, false
			}
		}
	}
	return newRange4(first, last), isLineEnd(line[n:])
}

// scanPlain4 reads the IPv4 address at line[n] and gives the place behind it,
// 0 if there is none.
func scanPlain4(line []byte, n int) (a uint32, end int) {
	for part := range 4 {
		if part > 0 {
			if n >= len(line) || line[n] != '.' {
				return 0, 0
			}
			n++
		}
		v, end := scanDecimal(line, n)
		if v > 255 {
			return 0, 0
		}
		a, n = a<<8|v, end
	}
	return a, n
}

// noDecimal is what scanDecimal gives where no number is.
const noDecimal = 1 << 10

// scanDecimal reads a number of one to three digits, the first of them not 0
// unless it is alone, at line[n], and gives the place behind it.
func scanDecimal(line []byte, n int) (v uint32, end int) {
	if n >= len(line) || line[n]-'0' > 9 {
		return noDecimal, n
	}
	v = uint32(line[n] - '0')
	n++
	if v == 0 {
		return 0, n
	}
	for range 2 {
		if n >= len(line) || line[n]-'0' > 9 {
			break
		}
		v = v*10 + uint32(line[n]-'0')
		n++
	}
	return v, n
}

// isLineEnd tells whether rest is nothing but space and a comment.
func isLineEnd(rest []byte) bool {
	for _, c := range rest {
		switch c {
		case '\n', '\r', ' ', '\t':
		case '#':
			return true
		default:
			return false
		}
	}
	return true
}
