/*
 * The top of the mount: MNT with its sandboxes, and each sandbox's own directory (workspace, ctl, root). Nothing here sends a
 * request, except mkdir's start in the background and rmdir.
 */
#ifndef SBX_ROOT_H
#define SBX_ROOT_H

#include "node.h"
#include "sandbox.h"

/*
 * The node that MNT is: all sandboxes, or with sandbox= that one, or with subdir= its workspace.
 * New reference; an errno with the sentence in c.
 */
int root_node_new(struct server *s, struct call *c, struct node **out);

#endif
