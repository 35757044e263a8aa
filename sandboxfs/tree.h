/*
 * The file tree of one sandbox: names, inodes, open files, over the file protocol.
 *
 * tree.c          nodes, and the tree as a whole
 * tree_dentry.c   names and paths
 * tree_lists.c    nodes the kernel was told of, nodes with something unsent
 * tree_names.c    operations on names: lookup, mkdir, rename, ...
 * tree_attr.c     operations on what a node is: attributes, links, xattrs
 * tree_show.c     how it looks here: inode numbers, symlinks
 * tree_open.c     opening and creating files
 * tree_file.c     reading, writing, closing them
 * tree_handle.c   the list of open files, and their handles in the sandbox
 * tree_send.c     what is written, on its way: buffer, stage, flush
 * tree_closer.c   what nobody waits for: closing, trying again
 * tree_dir.c      listings
 * tree_sync.c     barrier, invalidation, what a sandbox asks of its files
 * tree_conflict.c bytes whose name is gone
 * batch.c         one batch of the file protocol and its answer
 *
 * The rooms above see the two nodes below and nothing else.
 */
#ifndef SBX_TREE_H
#define SBX_TREE_H

#include "node.h"
#include "sandbox.h"

enum tree_root { TREE_WORKSPACE, TREE_SYSTEM };

/* /workspace, or /, of the sandbox; new reference. Sends no request. */
int tree_node(struct sandbox *sb, enum tree_root which, struct node **out);
/* For `MNT/.ctl` with subdir=: what this name of the workspace's root answers. Takes the reference. */
void tree_set_control(struct sandbox *sb, struct node *ctl);

#endif
