/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/*
 * A libFuzzer target: bytes of chance as batches to the file protocol's server and as replies to its client.
 *
 * The server does what it is told with whatever path it is told, so this runs nowhere but in a root of its own (tests/fuzz/run makes one)
 * and ends at once where it finds an /etc/passwd.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fileop.h"
#include "fileop_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fileop_server *the_server(void)
{
	static struct fileop_server *s;
	static const struct fileop_server_config config = {.workspace = "/tmp"};
	if (s)
		return s;
	if (access("/etc/passwd", F_OK) == 0) {
		fputs("fuzz_fileop: not in a root of its own; see the first lines of its source\n", stderr);
		_exit(1);
	}
	umask(0);
	if (fileop_server_new(&config, &s))
		abort();
	return s;
}

static void run(const void *p, size_t n)
{
	struct buf reply = BUF_INIT;
	struct reader in, body;
	struct fileop_reply head;
	/* In memory of its own size, so that one byte too far is seen. */
	char *exact = malloc(n ? n : 1);
	memcpy(exact, p, n);
	if (fileop_server_run(the_server(), exact, n, &reply) == 0) {
		/* What the server says, the client must be able to read. */
		uint32_t count;
		memcpy(&count, exact + 40, sizeof(count));
		reader_init(&in, reply.data, reply.size);
		if (fileop_get_reply(&in, count, &head))
			abort();
		for (uint32_t i = 0; i < count; i++)
			if (fileop_get_result(&in, &body) == -71 /* EPROTO */)
				abort();
		if (in.left || in.bad)
			abort();
	}
	free(exact);
	buf_release(&reply);
}

/* Calls of code, length and body each, in true frames: paths get their length, numbers are small. */
static void run_framed(struct reader *in)
{
	struct buf b = BUF_INIT;
	uint8_t client[FILEOP_ID_SIZE] = {0};
	uint32_t count = 0;
	client[0] = reader_u8(in) & 3;
	fileop_begin_request(&b, client, reader_u8(in), reader_u8(in));
	for (; in->left && count < 64; count++) {
		size_t at = fileop_begin_call(&b, reader_u8(in) % FILEOP_CODE_COUNT, reader_u8(in) & 1);
		for (unsigned fields = reader_u8(in) & 7; fields; fields--) {
			unsigned kind = reader_u8(in) & 3;
			if (kind == 0)
				buf_u64(&b, reader_u8(in) & 7);
			if (kind == 1)
				buf_u32(&b, reader_u16(in));
			if (kind == 2) {
				char path[] = "/tmp/d/ ";
				path[5] = (char)(path[5] + (reader_u8(in) & 3));
				path[7] = (char)('a' + (reader_u8(in) & 7));
				buf_bytes(&b, path, reader_u8(in) & 1 ? 8 : 6);
			}
			if (kind == 3) {
				size_t n = reader_u8(in);
				n = n < in->left ? n : in->left;
				buf_bytes(&b, reader_take(in, n), n);
			}
		}
		fileop_end_call(&b, at);
	}
	fileop_end_request(&b, count);
	run(b.data, b.size);
	buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r, body;
	struct fileop_reply head;
	struct fileop_attr attr;
	reader_init(&r, data, size);
	switch (reader_u8(&r) & 7) {
	case 0:
		run(r.p, r.left);
		break;
	case 1:
		fileop_get_reply(&r, 1, &head);
		while (r.left && !r.bad)
			if (fileop_get_result(&r, &body) == 0)
				fileop_get_attr(&body, &attr);
		break;
	default:
		run_framed(&r);
	}
	return 0;
}
