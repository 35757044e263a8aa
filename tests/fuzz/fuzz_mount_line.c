/* links: ctl/mount_line.c ctl/words.c contrib/common/buf.c sandboxfs/call.c sandboxfs/bucket.c */
/*
 * Lines and objects of mounts/new, and key files. The input is up to two parts with a NUL between them. What is accepted holds
 * nothing that would be more than a word to s3fs.
 */
#include <errno.h>

#include "fuzz.h"
#include "mount_line.h"

static const char *nothing(const char *name)
{
	(void)name;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	size_t n = end ? (size_t)(end - data) : size;
	char *line = fuzz_exact(data, n);
	char *key = fuzz_exact(end ? end + 1 : data, end ? size - n - 1 : 0);
	struct mount_request q = {0};
	struct call c;
	call_init(&c, 0);
	if (mount_request_parse(&c, line, n, &q) == 0) {
		const struct bucket *b = &q.bucket;
		MUST(b->bucket && b->dir && b->dir[0] == '/' && b->dir[1] && !strstr(b->dir, "//"));
		MUST(b->name && !strchr(b->name, '/') && b->name[0] != '.');
		MUST(!b->prefix || (b->prefix[0] == '/' && b->prefix[1]));
		for (char **o = b->options; o && *o; o++)
			MUST(!strchr(*o, ',') && **o != '-');
		free(q.key_file);
		q.key_file = NULL;
		(void)mount_request_complete(&c, &q, nothing);
		MUST(mount_key_parse(&c, key, end ? size - n - 1 : 0, &q.bucket) != 0 ||
			 (b->key_id && b->secret));
	}
	mount_request_release(&q);
	call_destroy(&c);
	free(key);
	free(line);
	return 0;
}
