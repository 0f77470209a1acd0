"""One training pass over a batch of patches, in one piece or chunk by chunk.

Chunks need memory for one of them only, whatever the size of the graph (gradient caching; Gao et
al., "Scaling deep contrastive learning batch size under memory limited setup", 2021).
"""


def passes(model, patches, chunk=None):
    """The training pass of `model` over `patches`.

    Args:
        model: `MixAndMatch`, a callable from patches to embeddings with a `backbone`.
        patches: tensor [N, S, S, 3].
        chunk: patches that are in the network at a time; None for all N.

    Returns:
        `WholePass` or `ChunkedPass`.

    Raises:
        ValueError: chunk does not divide N, or N is not known when the step is traced.
    """
    return WholePass(model, patches) if chunk is None else ChunkedPass(model, patches, chunk)


class WholePass:
    """All patches at once: what a GradientTape does by itself."""

    def __init__(self, model, patches):
        self.model, self.patches = model, patches

    def embed(self, tape):
        """Embeddings float32 [N, D] of the patches in training mode, recorded by `tape`."""
        return self.model(self.patches, training=True)

    def gradients(self, tape, loss):
        """Of a loss that `tape` saw, with respect to the model's trainable variables."""
        return tape.gradient(loss, self.model.trainable_variables)


class ChunkedPass:
    """Embeds chunk by chunk without keeping activations.

    Once the gradient of the loss with respect to all embeddings is known, each chunk goes through
    the network again, and its part of the weights' gradients is added up. Memory follows the chunk,
    the time is that of one more forward pass, and the traced graph has the same size for any number
    of chunks.

    What a chunk sees is the same both times: before the second round all variables of the backbone
    that training changes by itself (running statistics, states of random generators) are set back
    to where the first round found them. Thus dropout draws the same masks, and running statistics
    are updated once, by one update per chunk. Batch norm in training mode normalizes each chunk by
    its own batch; with frozen statistics the gradients are those of `WholePass`.
    """

    def __init__(self, model, patches, chunk):
        import tensorflow as tf  # train steps run on TensorFlow; the library imports without it

        patches = tf.convert_to_tensor(patches)
        num_nodes, *shape = patches.shape
        if num_nodes is None or num_nodes % chunk:
            raise ValueError(
                "chunk must divide the number of patches of a step, which must be known when the "
                f"step is traced. Received chunk={chunk} and {num_nodes} patches."
            )
        self.model = model
        self.chunks = tf.reshape(patches, [num_nodes // chunk, chunk, *shape])
        self.state = model.backbone.non_trainable_variables

    def embed(self, tape):
        """Embeddings float32 [N, D] of the patches in training mode, watched by `tape`."""
        import tensorflow as tf

        self.state_before = [tf.identity(variable) for variable in self.state]
        with tape.stop_recording():
            stacked = tf.map_fn(
                lambda chunk: self.model(chunk, training=True),
                self.chunks,
                fn_output_signature=tf.float32,
                parallel_iterations=1,
            )
        self.embeddings = tf.reshape(stacked, [-1, stacked.shape[-1]])
        tape.watch(self.embeddings)
        return self.embeddings

    def gradients(self, tape, loss):
        """Of a loss that `tape` saw, with respect to the model's trainable variables."""
        import tensorflow as tf

        by_embedding = tape.gradient(loss, self.embeddings)
        by_embedding = tf.reshape(by_embedding, [*self.chunks.shape[:2], -1])
        for variable, value in zip(self.state, self.state_before, strict=True):
            variable.assign(value)

        def add_chunk(k, *sums):
            gradients = self._chunk_gradients(self.chunks[k], by_embedding[k])
            return k + 1, *(total + part for total, part in zip(sums, gradients, strict=True))

        num_chunks = self.chunks.shape[0]
        zeros = [tf.zeros(weight.shape, weight.dtype) for weight in self.model.trainable_variables]
        _, *gradients = tf.while_loop(
            lambda k, *_: k < num_chunks,
            add_chunk,
            [tf.constant(0), *zeros],
            parallel_iterations=1,
        )
        return gradients

    def _chunk_gradients(self, patches, by_embedding):
        import tensorflow as tf

        weights = self.model.trainable_variables
        with tf.GradientTape() as tape:
            embeddings = self.model(patches, training=True)
        return tape.gradient(embeddings, weights, output_gradients=by_embedding)
