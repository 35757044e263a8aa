/*
 * A bucket as it is asked for: the line of mounts/new or mountBucket's object, and the key that opens it. No state, no requests.
 *
 * A key comes from a file of the host, from the environment of the program, or in the object; it goes into the request
 * alone, and into no message.
 */
#ifndef CTL_MOUNT_LINE_H
#define CTL_MOUNT_LINE_H

#include "bucket.h"

struct mount_request {
	struct bucket bucket;
	char *provider; /* r2, s3, gcs; NULL: not said */
	char *key_file; /* NULL: not said */
	bool public;    /* no key is needed */
};

/* 0 and *out filled but for what the environment and the key file have; else an errno with a fault and *out empty. */
int mount_request_parse(struct call *c, const char *line, size_t n, struct mount_request *out);
void mount_request_release(struct mount_request *q);
/* What was left out: endpoint and key, by the provider, the environment (get, as getenv) and the key file. */
int mount_request_complete(
	struct call *c, struct mount_request *q, const char *(*get)(const char *name));
/* The key of this bucket in the text of a key file: s3fs's KEY:SECRET and BUCKET:KEY:SECRET lines, or NAME = VALUE lines as aws(1) and shells have. */
int mount_key_parse(struct call *c, const char *text, size_t n, struct bucket *b);

#endif
