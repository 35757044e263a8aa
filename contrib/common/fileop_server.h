/*
 * The server side of the file protocol (fileop.h): does batches on the real
 * file system. Owns the table of handles and the remembered replies, with its own locks;
 * thread-safe: batches run in parallel, and a repetition of a batch that still runs waits for it.
 * Knows nothing of HTTP. Relies on umask(0) in its process (modes come from the client, masked there).
 */
#ifndef SBX_FILEOP_SERVER_H
#define SBX_FILEOP_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct fileop_server;

struct fileop_server_config {
	const char *workspace; /* borrowed; "/workspace" */
	/* Bytes of the workspace's file system that writes, creations and growth leave free (ENOSPC); 0: none */
	uint64_t min_free;
	/* Of what is lost with the sandbox that holds the workspace: told with the workspace's inode, which a fresh one of the same image may share */
	uint64_t mark;
};

/* 0 and *out new, or a negative errno. */
int fileop_server_new(const struct fileop_server_config *config, struct fileop_server **out);
void fileop_server_free(struct fileop_server *s);

/* Does the batch in request and appends the whole reply. 0, or -EBADMSG (not a batch: nothing was done), -ENOMEM. */
int fileop_server_run(struct fileop_server *s, const void *request, size_t size, struct buf *reply);

/* Would writing n more bytes under /workspace go below min_free? 0 or -ENOSPC. */
int fileop_server_check_space(struct fileop_server *s, uint64_t n);

#endif
