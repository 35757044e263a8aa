/* links: contrib/common/mux.c contrib/common/mux_connection.c contrib/common/buf.c */
/*
 * A carrier's bytes. The first byte of the input says whose side we are; then come frames without check and sequence, which are put
 * right here, since chance would find neither: type, stream, length (2 bytes), payload. What is left over goes raw.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "fuzz.h"
#include "mux.h"

struct wire {
	uint8_t *p;
	size_t size, at;
};

static int null_fd;

static int poll_fd(void *arg)
{
	(void)arg;
	return null_fd; /* always ready */
}

static short poll_events(void *arg, int wants_write)
{
	(void)arg;
	(void)wants_write;
	return POLLIN;
}

static int wire_read(void *arg, void *p, size_t size, size_t *n)
{
	struct wire *w = arg;
	if (w->at == w->size)
		return -EPIPE;
	*n = w->size - w->at < size ? w->size - w->at : size;
	memcpy(p, w->p + w->at, *n);
	w->at += *n;
	return 0;
}

static int wire_write(void *arg, const void *p, size_t size, size_t *n)
{
	(void)arg;
	(void)p;
	*n = size;
	return 0;
}

/* Each is a pair whose other end says something and goes, or takes a little and stays. */
static int others[4 * MUX_CONNECTIONS];
static size_t other_count;

static int wire_connect(void *arg)
{
	(void)arg;
	int pair[2];
	if (other_count == sizeof others / sizeof *others)
		return -ECONNREFUSED;
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	if (other_count % 2)
		close(pair[1]);
	else
		MUST(send(pair[1], "hello", 5, MSG_NOSIGNAL) == 5);
	others[other_count] = other_count % 2 ? -1 : pair[1];
	other_count++;
	return pair[0];
}

static size_t put_frame(uint8_t *to, uint32_t sequence, const uint8_t *p, size_t left)
{
	size_t length = (size_t)(p[2] | p[3] << 8) % (MUX_PAYLOAD + 2);
	size_t have = left - 4 < length ? left - 4 : length;
	memset(to, 0, MUX_HEADER + length);
	memcpy(to + MUX_HEADER, p + 4, have);
	memcpy(to + 4, &sequence, 4);
	to[8] = p[1];
	to[12] = (uint8_t)length;
	to[13] = (uint8_t)(length >> 8);
	to[14] = p[0];
	to[15] = MUX_VERSION;
	uint32_t check = (uint32_t)crc32(crc32(0, NULL, 0), to + 4, (uInt)(MUX_HEADER - 4 + length));
	memcpy(to, &check, 4);
	return MUX_HEADER + length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (!null_fd)
		null_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct wire w = {malloc((size + 1) * (MUX_HEADER + MUX_PAYLOAD + 2) / 4 + 65536), 0, 0};
	MUST(w.p);
	uint32_t sequence = 0;
	size_t at = 1;
	for (; size - at >= 4 && w.size < 4 << 20; sequence++) {
		size_t length = (size_t)(data[at + 2] | data[at + 3] << 8) % (MUX_PAYLOAD + 2);
		w.size += put_frame(w.p + w.size, sequence, data + at, size - at);
		at += 4 + (size - at - 4 < length ? size - at - 4 : length);
	}
	memcpy(w.p + w.size, data + at, size - at);
	w.size += size - at;
	other_count = 0;
	int listener = -1;
	if (data[0] & 1) {
		listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		MUST(listener >= 0 && listen(listener, 1) < 1);
	}
	struct mux_spec spec = {.carrier = {poll_fd, poll_events, wire_read, wire_write, &w},
		.listener = listener,
		.connect = wire_connect,
		.stop_fd = -1};
	int rc = mux_run(&spec);
	MUST(rc == -EPIPE || rc == -EPROTO || (listener >= 0 && rc < 0));
	for (size_t i = 0; i < other_count; i++)
		if (others[i] >= 0)
			close(others[i]);
	if (listener >= 0)
		close(listener);
	free(w.p);
	return 0;
}
