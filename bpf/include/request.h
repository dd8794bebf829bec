/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which host the client of a TCP connection asks for, from the first bytes it
 * sent: the server_name of a TLS ClientHello (RFC 8446, RFC 6066), or the Host of
 * an HTTP/1.x request (RFC 9112).
 *
 * Where servers are known to read the same bytes in different ways, a request is
 * unreadable, for else a client could show one name here and another one to
 * the server: a name that stands there twice, lengths that contradict each other,
 * a ClientHello cut over several records (a known evasion that no client needs),
 * folded lines, white space before a colon, line ends that are none, a target
 * that names a host of its own.
 */
#ifndef EGATE_REQUEST_H
#define EGATE_REQUEST_H

#include "dns.h"
#include "maps.h"

enum request {
	REQUEST_MORE,  /* sound so far, but the name may still come */
	REQUEST_NAMED, /* the room's name is the one asked for; not hashed */
	REQUEST_NAMELESS, /* sound, but without a name: none, or an empty one, or one that no host has, such as an address */
	REQUEST_UNREADABLE, /* no such request, or one that may be read in several ways */
};

/* What the reader knows of the request; in the room, where the verifier does not follow values from round to round. */
struct request_reader {
	__u64 stops;  /* HTTP: eight times the byte at and above which bytes need no look */
	__u32 at;     /* the byte to look at next */
	__u32 end;    /* of what is read: the extensions, or the bytes that are there */
	__u32 line;   /* HTTP: where the present line begins; 0 is the request line */
	__u32 target; /* HTTP: where the request's target begins */
	__u32 name;   /* where the name stands, or what is around it */
	__u32 name_bytes;
	__u8 names; /* how many were met */
	__u8 ech;   /* the extension encrypted_client_hello was met */
	__u8 found; /* enum request */
	__u8 http;
};
_Static_assert(sizeof(struct request_reader) <= sizeof(((struct room *)0)->reader),
	       "the reader fits");

/* Record, handshake header, version, random: where the session id's length stands. */
#define HELLO_SESSION (5 + 4 + 2 + 32)
#define HELLO_SESSION_BYTES 32
#define EXTENSION_SERVER_NAME 0
#define EXTENSION_ECH 0xfe0d
#define METHOD_BYTES 32 /* the longest registered one has 17 */
#define PORT_DIGITS 5
#define HOST_SPACES 32 /* on either side of a Host; more than one is rare */

#define EIGHT(byte) (0x0101010101010101ULL * (byte))

static __always_inline volatile struct request_reader *reader_of(struct room *r)
{
	return (volatile struct request_reader *)r->reader;
}

/* Whether the last request that was read has an encrypted ClientHello inside, or pretends to (GREASE). */
static inline int request_has_ech(struct room *r)
{
	return reader_of(r)->ech;
}

/* A byte at an offset that the caller has compared with an end. */
static __always_inline __u32 byte_at(struct room *r, __u32 offset)
{
	return ROOM_AT(r, offset, __u8);
}

static __always_inline int finish(volatile struct request_reader *q, __u8 found)
{
	q->found = found;
	return 1;
}

/* --- TLS --- */

/* 1: that was the last one. */
static __always_inline int read_extension(struct room *r, volatile struct request_reader *q)
{
	__u32 offset = q->at, end = q->end;
	__u32 type, bytes;

	if (offset == end)
		return finish(q, q->names ? REQUEST_NAMED : REQUEST_NAMELESS);
	if (offset + 4 > end)
		return finish(q, REQUEST_UNREADABLE);
	type = room_u16(r, offset);
	bytes = room_u16(r, offset + 2);
	offset += 4;
	if (offset + bytes > end)
		return finish(q, REQUEST_UNREADABLE);
	q->at = offset + bytes;
	if (type == EXTENSION_ECH)
		q->ech = 1;
	if (type == EXTENSION_SERVER_NAME) {
		if (q->names)
			return finish(q, REQUEST_UNREADABLE);
		q->names = 1;
		q->name = offset;
		q->name_bytes = bytes;
	}
	return 0;
}

static long read_extensions(__u32 round, void *context)
{
	struct room *r = at(&room, 0);

	if (!r)
		return 1;
	for (int i = 0; i < 16; i++)
		if (read_extension(r, reader_of(r)))
			return 1;
	return 0;
}

/* Reads a list of server names that has one element, of type host_name. 0, or -1: it is something else. */
static __always_inline int read_server_name(struct room *r, volatile struct request_reader *q)
{
	__u32 offset = q->name, bytes = q->name_bytes;

	/* others than host_name were never defined, and OpenSSL refuses what Go would skip */
	if (bytes < 5 || room_u16(r, offset) != bytes - 2 || byte_at(r, offset + 2) != 0 ||
	    room_u16(r, offset + 3) != bytes - 5)
		return -1;
	q->name = offset + 5;
	q->name_bytes = bytes - 5;
	return 0;
}

/* Reads up to the extensions. An enum request; REQUEST_NAMED: they are there to be read. */
static __always_inline __u32 begin_hello(struct room *r, volatile struct request_reader *q)
{
	__u32 length = r->length;
	__u32 end, offset, bytes;

	/* what can be said of the first bytes is said before the rest is there */
	if (length > 1 && byte_at(r, 1) != 3)
		return REQUEST_UNREADABLE;
	if (length < 5)
		return REQUEST_MORE;
	bytes = room_u16(r, 3);
	end = 5 + bytes;
	/* a full record is longer than the room, and than any client's */
	if (end <= HELLO_SESSION || end > EGATE_ROOM_BYTES || (length > 5 && byte_at(r, 5) != 1))
		return REQUEST_UNREADABLE;
	if (length < 9)
		return REQUEST_MORE;
	/* all of the record, and nothing but it */
	if (byte_at(r, 6) != 0 || room_u16(r, 7) != bytes - 4)
		return REQUEST_UNREADABLE;
	if (length > 9 && byte_at(r, 9) != 3)
		return REQUEST_UNREADABLE;
	if (length < end)
		return REQUEST_MORE;

	bytes = byte_at(r, HELLO_SESSION);
	if (bytes > HELLO_SESSION_BYTES)
		return REQUEST_UNREADABLE;
	offset = HELLO_SESSION + 1 + bytes;
	if (offset + 2 > end)
		return REQUEST_UNREADABLE;
	bytes = room_u16(r, offset); /* cipher suites */
	offset += 2 + bytes;
	if (bytes == 0 || bytes & 1 || offset + 1 > end)
		return REQUEST_UNREADABLE;
	bytes = byte_at(r, offset); /* compression methods */
	offset += 1 + bytes;
	if (bytes == 0 || offset > end)
		return REQUEST_UNREADABLE;
	if (offset == end)
		return REQUEST_NAMELESS;
	if (offset + 2 > end || room_u16(r, offset) != end - offset - 2)
		return REQUEST_UNREADABLE;
	q->at = offset + 2;
	q->end = end;
	return REQUEST_NAMED;
}

static __noinline int read_hello(void)
{
	struct room *r = at(&room, 0);
	volatile struct request_reader *q;

	if (!r)
		return -1;
	q = reader_of(r);
	q->found = begin_hello(r, q);
	if (q->found != REQUEST_NAMED)
		return 0;
	q->found = REQUEST_UNREADABLE;
	/* 4 bytes an extension */
	bpf_loop(EGATE_ROOM_BYTES / 4 / 16, read_extensions, 0, 0);
	if (q->found == REQUEST_NAMED && read_server_name(r, q))
		q->found = REQUEST_UNREADABLE;
	return 0;
}

/* --- HTTP --- */

/* Bytes of names, of methods and of field names as far as they matter here: letters, digits, and "-._". */
static __always_inline int is_name_byte(__u32 c)
{
	__u64 set = c & 64 ? 0x07fffffe87fffffeULL : 0x03ff600000000000ULL;

	return c < 128 && set >> (c & 63) & 1;
}

static __always_inline int is_digit(__u32 c)
{
	return c - '0' < 10;
}

static __always_inline int is_blank(__u32 c)
{
	return c == ' ' || c == '\t';
}

/* How many bytes of a word, from the first on, stand before one that is below the stops; after Warren, Hacker's Delight, 6-1. */
static __always_inline __u32 unremarkable(__u64 word, __u64 stops)
{
	__u64 below = ((word - stops) & ~word & EIGHT(0x80)) >> 7; /* right up to the first one */

	return ((below - 1) & ~below & EIGHT(0x01)) * EIGHT(0x01) >> 56;
}

/* The space behind the target. 1: the end of what can be read. */
static __always_inline int read_version(struct room *r, volatile struct request_reader *q)
{
	__u32 offset = q->at, behind = offset + 1 + 8;
	__u64 version;

	if (behind >= q->end)
		return 1;
	version = ROOM_AT(r, offset + 1, __u64);
	if (version != 0x312e312f50545448ULL && version != 0x302e312f50545448ULL)
		return finish(q, REQUEST_UNREADABLE); /* not HTTP/1.1 nor HTTP/1.0 */
	if (byte_at(r, q->target) == '*' && offset != q->target + 1)
		return finish(q, REQUEST_UNREADABLE);
	if (byte_at(r, behind) != '\r' && byte_at(r, behind) != '\n')
		return finish(q, REQUEST_UNREADABLE);
	q->at = behind;
	q->stops = EIGHT(' ');
	return 0;
}

/* A line of the header, which ends before offset. 1: it was the last, or none. */
static __always_inline int read_field(struct room *r, volatile struct request_reader *q,
				      __u32 offset)
{
	__u32 line = q->line;
	__u32 name, c;

	if (line == offset)
		return finish(q, q->names ? REQUEST_NAMED : REQUEST_NAMELESS);
	if (is_blank(byte_at(r, line)))
		return finish(q, REQUEST_UNREADABLE);
	name = ROOM_AT(r, line, __u32);
	if (line + 4 > offset || (name | 0x20202020) != 0x74736f68) /* host */
		return 0;
	c = byte_at(r, line + 4);
	if (is_name_byte(c))
		return 0; /* another one, that begins so */
	if (c != ':' || q->names)
		return finish(q, REQUEST_UNREADABLE);
	q->names = 1;
	q->name = line + 5;
	q->name_bytes = offset - line - 5;
	return 0;
}

/* Looks at a byte that has a meaning. 1: the end of the header, or of what can be read. */
__noinline int read_stop(void)
{
	struct room *r = at(&room, 0);
	volatile struct request_reader *q;
	__u32 offset, next, c;

	if (!config.names.in_use || !r)
		return 1;
	q = reader_of(r);
	offset = q->at;
	if (offset >= q->end)
		return 1;
	c = byte_at(r, offset);
	next = offset + 1;
	if (c == ' ' && q->stops != EIGHT(' '))
		return read_version(r, q);
	if (c == '\t' && q->line) {
		q->at = next;
		return 0;
	}
	if (c == '\r') {
		if (next >= q->end)
			return 1;
		c = byte_at(r, next);
		next++;
	}
	/* a line end, and that of a request line behind its version only */
	if (c != '\n' || q->stops != EIGHT(' '))
		return finish(q, REQUEST_UNREADABLE);
	if (q->line && read_field(r, q, offset))
		return 1;
	q->line = next;
	q->at = next;
	return 0;
}

static long read_words(__u32 round, void *context)
{
	struct room *r = at(&room, 0);
	volatile struct request_reader *q;

	if (!r)
		return 1;
	q = reader_of(r);
	for (int i = 0; i < 16; i++) {
		__u32 offset = q->at;
		__u32 passed;

		if (offset >= q->end)
			return 1;
		passed = unremarkable(ROOM_AT(r, offset, __u64), q->stops);
		q->at = offset + passed;
		if (passed < 8 && read_stop())
			return 1;
	}
	return 0;
}

/* Reads the method and what the target begins with. As begin_hello. */
static __always_inline __u32 begin_http(struct room *r, volatile struct request_reader *q)
{
	__u32 c, target;

	for (int i = 0; i <= METHOD_BYTES; i++) {
		if (i >= r->length)
			return REQUEST_MORE;
		c = byte_at(r, i);
		if (c - 'A' < 26)
			continue;
		if (c != ' ' || i == 0)
			return REQUEST_UNREADABLE;
		q->target = i + 1;
		break;
	}
	target = q->target;
	if (target == 0)
		return REQUEST_UNREADABLE;
	if (target >= r->length)
		return REQUEST_MORE;
	c = byte_at(r, target);
	if (c != '/' && c != '*')
		return REQUEST_UNREADABLE;
	q->at = target;
	q->end = r->length;
	q->stops = EIGHT(' ' + 1);
	return REQUEST_NAMED;
}

/* Takes the white space off the value of Host. 0, or -1: there is more than anybody sends. */
static __always_inline int trim(struct room *r, volatile struct request_reader *q)
{
	for (int i = 0; i <= HOST_SPACES; i++) {
		if (!q->name_bytes || !is_blank(byte_at(r, q->name)))
			break;
		if (i == HOST_SPACES)
			return -1;
		q->name++;
		q->name_bytes--;
	}
	for (int i = 0; i <= HOST_SPACES; i++) {
		if (!q->name_bytes || !is_blank(byte_at(r, q->name + q->name_bytes - 1)))
			break;
		if (i == HOST_SPACES)
			return -1;
		q->name_bytes--;
	}
	return 0;
}

static __noinline int read_http(void)
{
	struct room *r = at(&room, 0);
	volatile struct request_reader *q;

	if (!r)
		return -1;
	q = reader_of(r);
	q->http = 1;
	q->found = begin_http(r, q);
	if (q->found != REQUEST_NAMED)
		return 0;
	q->found = REQUEST_MORE;
	/* each look takes a byte at least */
	bpf_loop(EGATE_ROOM_BYTES / 16, read_words, 0, 0);
	if (q->found == REQUEST_NAMED && trim(r, q))
		q->found = REQUEST_UNREADABLE;
	return 0;
}

/* --- both --- */

/* Whether the last label of the room's name is a number: no host's name ends so (RFC 3696, 2), but IPv4 addresses do. */
static __always_inline int is_numeric(struct room *r)
{
	const struct name *n = &r->name;
	__u32 label = n->starts[(n->labels - 1) & 127];
	__u32 bytes = n->wire[label];

	for (__u32 i = 1; i < 64; i++) {
		if (i > bytes)
			return 1;
		if (!is_digit(n->wire[label + i]))
			return 0;
	}
	return 1;
}

/* Whether nothing but a port stands between offset and end. */
static __always_inline int is_port(struct room *r, __u32 offset, __u32 end)
{
	if (byte_at(r, offset) != ':' || end - offset > 1 + PORT_DIGITS)
		return 0;
	for (__u32 i = 1; i <= PORT_DIGITS; i++)
		if (offset + i < end && !is_digit(byte_at(r, offset + i)))
			return 0;
	return 1;
}

/* Reads the name where the request has it, into the room's name. */
static __noinline int read_requested_name(void)
{
	struct room *r = at(&room, 0);
	volatile struct request_reader *q;
	__u32 end, stop;
	__u8 ech;

	if (!r)
		return REQUEST_UNREADABLE;
	q = reader_of(r);
	end = q->name + q->name_bytes;
	q->at = q->name;
	for (int i = 0; i < EGATE_NAME_BYTES; i++) {
		__u32 offset = q->at;

		if (offset >= end || !is_name_byte(byte_at(r, offset)))
			break;
		q->at = offset + 1;
	}
	stop = q->at;
	if (stop < end && !(q->http && is_port(r, stop, end)))
		return REQUEST_NAMELESS;
	ech = q->ech; /* the room has one reader's state at a time */
	if (read_dotted(q->name, stop - q->name) || !r->name.labels || is_numeric(r))
		end = 0;
	q->ech = ech;
	return end ? REQUEST_NAMED : REQUEST_NAMELESS;
}

/*
 * Reads the request that the room's bytes begin with. An enum request, which more
 * bytes never change unless it is REQUEST_MORE. That is never said of a full room.
 */
__noinline int read_request(void)
{
	struct room *r = at(&room, 0);
	volatile struct request_reader *q;
	__u32 found;

	if (!config.names.in_use || !r || r->length > EGATE_ROOM_BYTES)
		return REQUEST_UNREADABLE;
	q = reader_of(r);
	__builtin_memset((void *)q, 0, sizeof(*q));
	if (!r->length)
		return REQUEST_MORE;
	if (byte_at(r, 0) == 22)
		read_hello();
	else
		read_http();
	found = q->found;
	if (found == REQUEST_NAMED)
		return read_requested_name();
	if (found == REQUEST_MORE && r->length == EGATE_ROOM_BYTES)
		return REQUEST_UNREADABLE;
	return found;
}

#endif
