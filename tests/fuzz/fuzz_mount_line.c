/* links: ctl/mount_line.c ctl/words.c sandboxfs/bucket.c contrib/common/buf.c sandboxfs/call.c */
/*
 * What is asked of mounts/new, and key files. A directory is absolute and holds no dots, and a secret is in no message. The input is up
 * to two parts with a NUL between them.
 */
#include <errno.h>

#include "fuzz.h"
#include "mount_line.h"

static void directory_is_good(const char *dir)
{
	MUST(dir && *dir == '/');
	for (const char *p = dir; (p = strchr(p, '/')); p++) {
		size_t n = strcspn(p + 1, "/");
		MUST(n <= 255);
		MUST(!(n == 1 && p[1] == '.') && !(n == 2 && p[1] == '.' && p[2] == '.'));
	}
}

static const char *no_variable(const char *name)
{
	(void)name;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	size_t n = end ? (size_t)(end - data) : size;
	char *line = fuzz_exact(data, n);
	size_t key_size = end ? size - n - 1 : 0;
	char *key = fuzz_exact(end ? end + 1 : data, key_size);
	struct mount_request q = {0};
	struct call c;
	call_init(&c, 0);
	int err = mount_request_parse(&c, line, n, &q);
	if (err == 0) {
		directory_is_good(q.bucket.dir);
		MUST(q.bucket.bucket && q.bucket.name && !strchr(q.bucket.name, '/'));
		MUST(!q.bucket.prefix || *q.bucket.prefix == '/');
		/* a file of the host that is named would be read */
		if (!q.key_file)
			(void)mount_request_complete(&c, &q, no_variable);
		(void)mount_key_parse(&c, key, key_size, &q.bucket);
	} else {
		MUST(err == -ENOMEM || (c.fault.err == -err && c.fault.message));
	}
	mount_request_release(&q);
	call_destroy(&c);
	free(key);
	free(line);
	return 0;
}
